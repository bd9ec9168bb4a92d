"""Train the models of the experiment on one device, and measure them.

What belongs here: the decoder, its training and its bits per byte, the clock, what is finished. What does not: text,
selecting, statistics. PyTorch, NumPy and the standard library alone, so that a machine lent for minutes needs nothing
else.

For each seed, a base is trained on random text, with warm-up and a constant rate. Every selection then has its fork:
the base's weights, a fresh optimizer, warm-up and linear decay to zero. Comparing data in a short decay from a common
start is usual where a whole run for each is too expensive (Llama 3, arXiv 2407.21783, section 3.1.3). The forks of a
seed differ in their text alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, scaled_dot_product_attention

from benchmarks.gpu.design import FULL, Experiment, ModelSize, Plan, choose, selection_name
from benchmarks.gpu.prepared import END, Prepared, cell_of
from benchmarks.paper.cells import Cells

#: Steps that are timed; fewer where they would take more than this part of the time.
TIMED, TIMING_SHARE = 20, 0.02
#: Seconds that compiling may take; with less than twice that left, it is not tried.
COMPILING = 60
#: Part of the time that is kept back for the end.
RESERVE = 0.02
#: Part of the steps in which the rate rises.
WARM_UP = 0.1


class OutOfTimeError(Exception):
    """The time is used up."""


# --- the model ---------------------------------------------------------------------------------------


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inwards = nn.Linear(width, 3 * width, bias=False)
        self.outwards = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        split = self.inwards(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(split[0], split[1], split[2], is_causal=True)
        return self.outwards(seen.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), _Attention(width, heads))
        self.dense = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.dense(x)


class Decoder(nn.Module):
    """A causal transformer: normalization before layers, learnt positions, tied embeddings.

    Parameters
    ----------
    size : ModelSize
    vocabulary, context : int
    """

    def __init__(self, size: ModelSize, vocabulary: int, context: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, size.width)
        self.places = nn.Embedding(context, size.width)
        layers = [_Layer(size.width, size.heads) for _ in range(size.layers)]
        self.layers = nn.Sequential(*layers, nn.LayerNorm(size.width))
        for name, each in self.named_parameters():
            if each.dim() > 1:
                last = name.endswith(("outwards.weight", "dense.3.weight"))
                nn.init.normal_(each, std=0.02 / math.sqrt(2 * size.layers) if last else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (batch, n, vocabulary) of the tokens that follow (batch, n)."""
        hidden = self.layers(self.words(ids) + self.places.weight[: ids.shape[1]])
        return linear(hidden, self.words.weight)


def cut(ids: np.ndarray, context: int) -> np.ndarray:
    """Cut a text into contexts, each with the token that follows: int32[n, context + 1]."""
    n = (len(ids) - 1) // context
    return np.lib.stride_tricks.sliding_window_view(ids, context + 1)[: n * context : context].copy()


class Trainer:
    """A model on a device.

    Parameters
    ----------
    experiment : Experiment
    size : ModelSize
    device : str
        ``cuda``: in bfloat16, weights and optimizer in float32. ``cpu``: in one thread of this process from now on, so
        that figures do not depend on the number of cores.
    deadline : float
        Of `time.monotonic`.
    """

    def __init__(self, experiment: Experiment, size: ModelSize, device: str, deadline: float) -> None:
        self.experiment, self.size, self.device, self.deadline = experiment, size, device, deadline
        if device == "cpu":
            torch.set_num_threads(1)
        self.model = Decoder(size, experiment.vocabulary, experiment.context).to(device)
        self.parameters = sum(each.numel() for each in self.model.parameters())
        self.compile(False)

    def compile(self, wanted: bool = True) -> None:
        """Compile training, or not; evaluation stays as it is. Happens at the next step."""
        if not wanted:
            self._loss: Callable[[Tensor], Tensor] = self._eager
        elif not self.compiled:
            self._loss = torch.compile(self._eager)
        self.compiled = wanted

    def reset(self, seed: int) -> None:
        """Draw new weights, the same on every device."""
        torch.manual_seed(seed)
        fresh = Decoder(self.size, self.experiment.vocabulary, self.experiment.context)
        self.model.load_state_dict(fresh.state_dict())

    def fit(self, ids: np.ndarray, epochs: int, decay: bool, seed: int, steps: int | None = None) -> None:
        """Train the model on a text.

        Parameters
        ----------
        ids : ndarray of int32, shape (n,)
        epochs : int
            Each in another order; contexts that do not fill a step are left out.
        decay : bool
            Whether the rate falls to zero after its warm-up, or stays.
        seed : int
            Of the orders.
        steps : int, optional
            Stop after so many.

        Raises
        ------
        OutOfTimeError
            The deadline has passed.
        """
        e = self.experiment
        windows = torch.from_numpy(cut(ids, e.context)).to(self.device)
        per_epoch = len(windows) // e.windows
        if not per_epoch:
            raise SystemExit(f"{len(ids):,} tokens; a step takes {e.windows * e.context + 1:,}")
        total = epochs * per_epoch
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=e.rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        chance = np.random.default_rng(seed)
        for step in range(min(total, steps or total)):
            if time.monotonic() > self.deadline:
                raise OutOfTimeError
            if step % per_epoch == 0:
                order = torch.from_numpy(chance.permutation(len(windows))).to(self.device)
            warm = min(1.0, (step + 1) / (WARM_UP * total))
            left = (1 - step / total) / (1 - WARM_UP) if decay else 1.0
            optimizer.param_groups[0]["lr"] = e.rate * min(warm, left)
            first = step % per_epoch * e.windows
            loss = self._loss(windows[order[first : first + e.windows]].long())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
        self.wait()

    def bits_per_byte(self, ids: np.ndarray, n_bytes: int) -> float:
        """Return the bits that the model needs for a byte of a text; ends of documents are not counted.

        Parameters
        ----------
        ids : ndarray of int32, shape (n,)
            Every token is predicted once, from those before it in its context.
        n_bytes : int
            Of the text.
        """
        e = self.experiment
        n = -(-len(ids) // e.context)
        padded = np.full(n * e.context + 1, END, dtype=np.int32)
        padded[1 : len(ids) + 1] = ids
        windows = torch.from_numpy(cut(padded, e.context)).to(self.device)
        total = torch.zeros((), device=self.device)
        with torch.inference_mode():
            for part in windows.split(e.windows):
                if time.monotonic() > self.deadline:
                    raise OutOfTimeError
                total += self._nats(part.long(), ignore_index=END, reduction="sum")
        return float(total) / math.log(2) / n_bytes

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _eager(self, windows: Tensor) -> Tensor:
        return self._nats(windows)

    def _nats(self, windows: Tensor, **options) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            logits = self.model(windows[:, :-1])
        return cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten(), **options)


# --- the clock ---------------------------------------------------------------------------------------


class Stopwatch:
    """Measures how fast models train, uncompiled and, where that is too slow on a GPU, compiled.

    Parameters
    ----------
    prepared : Prepared
    device : str
    deadline : float
        Of `time.monotonic`.
    say : callable
        Prints a line.

    Attributes
    ----------
    trainer : Trainer
        Of the last model that was timed, compiled if that is faster.
    compiles : bool
        Whether to try that: on a GPU, until it fails once.
    """

    trainer: Trainer

    def __init__(self, prepared: Prepared, device: str, deadline: float, say: Callable[[str], None]) -> None:
        self._experiment, self._device = prepared.experiment, device
        self._deadline, self._say = deadline, say
        self._step = self._experiment.windows * self._experiment.context
        self._text = prepared.selection("base", TIMED * self._step + 1)
        self._most = (len(self._text) - 1) // self._step  # of a small text, fewer steps
        self.compiles = device == "cuda"

    def __call__(self, size: ModelSize, needed: float) -> float:
        """Return the tokens a second of a size in training; compiled if it would be less than needed otherwise."""
        self.trainer = Trainer(self._experiment, size, self._device, self._deadline)
        speed = self.measure()
        self._say(
            f"{size.name} ({self.trainer.parameters:,} parameters): {speed:,.0f} tokens/s; "
            f"the full experiment needs {needed:,.0f}"
        )
        if self.compiles and speed < needed and self._deadline - time.monotonic() > 2 * COMPILING:
            self.trainer.compile()
            try:
                faster = self.measure()
            except OutOfTimeError:
                raise
            except Exception as error:  # whatever the compiler lacks here
                self.compiles, faster = False, 0.0
                self._say(f"not compiled: {str(error).strip().partition(chr(10))[0]}")
            else:
                self._say(f"compiled: {faster:,.0f} tokens/s")
            self.trainer.compile(faster > speed)
            speed = max(speed, faster)
        return speed

    def measure(self) -> float:
        """Return the tokens a second of the trainer as it is."""
        self._seconds(1)  # allocates, compiles
        allowed = TIMING_SHARE * (self._deadline - time.monotonic())
        steps = min(self._most, max(1, int(allowed / self._seconds(1))))
        return steps * self._step / self._seconds(steps)

    def _seconds(self, steps: int) -> float:
        started = time.monotonic()
        self.trainer.fit(self._text, 1, False, 0, steps)
        return time.monotonic() - started


# --- all models --------------------------------------------------------------------------------------


def run(data: Path, output: Path, minutes: float, device: str, started: float) -> bool:
    """Train and measure what is not finished; return whether everything is.

    Parameters
    ----------
    data : Path
        What ``prepare`` wrote.
    output : Path
        ``plan.json``, ``cells.jsonl`` and the weights of a base are kept here; a later call goes on from them, under
        the same plan.
    minutes : float
        All included, from ``started`` on.
    device : str
        ``cpu`` or ``cuda``.
    started : float
        Of `time.monotonic`.

    Raises
    ------
    SystemExit
        The data are missing, changed, or not those of the plan; no plan fits; or the full experiment has no GPU.
    """
    deadline = started + 60 * minutes * (1 - RESERVE)

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {line}", flush=True)

    torch.set_float32_matmul_precision("high")
    prepared = Prepared(data)
    if device == "cpu" and prepared.experiment.sizes == FULL.sizes:
        raise SystemExit(
            "the full experiment needs a GPU (on a CPU, days and 15 GB of memory); `prepare --dry-run` writes a "
            "hundredth of it"
        )
    name = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    say(f"{len(prepared.heldout)} targets, {len(prepared.methods)} methods, on {name}")
    output.mkdir(parents=True, exist_ok=True)
    try:
        path = output / "plan.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["data"] != prepared.digest:
                raise SystemExit(f"{path} is of other data; name another --output, or remove that folder")
            plan = Plan.of(record["plan"])
            trainer = Trainer(prepared.experiment, plan.size, device, deadline)
            trainer.compile(record["compiled"] and device == "cuda")
        else:
            plan, trainer = _planned(prepared, device, deadline, say)
            record = {"data": prepared.digest, "plan": plan.record(), "compiled": trainer.compiled}
            record |= {"device": name, "torch": torch.__version__}
            _write(path, json.dumps(record, indent=1).encode() + b"\n")
        say(
            f"plan: {plan.size.name} parameters, {plan.base_tokens:,} base tokens, {len(plan.targets)} targets"
        )
        for seed in range(prepared.experiment.seeds):
            _run_seed(prepared, plan, trainer, seed, output, say)
    except OutOfTimeError:
        say("out of time; finished figures are kept, and the same command goes on from there")
        return False
    say("finished")
    return True


def _planned(
    prepared: Prepared, device: str, deadline: float, say: Callable[[str], None]
) -> tuple[Plan, Trainer]:
    """Time models; return the plan, and its model, which was timed last."""
    stopwatch = Stopwatch(prepared, device, deadline, say)
    heldout = {target: each["tokens"] for target, each in prepared.heldout.items()}
    methods = len(prepared.methods)
    plan, seconds = choose(
        prepared.experiment, heldout, methods, stopwatch, lambda: deadline - time.monotonic()
    )
    say(f"that should take {seconds:.0f} s")
    return plan, stopwatch.trainer


def _run_seed(
    prepared: Prepared, plan: Plan, trainer: Trainer, seed: int, output: Path, say: Callable[[str], None]
) -> None:
    """Train a base and its forks, and measure them, as far as that is not done."""
    experiment, cells = prepared.experiment, Cells(output / "cells.jsonl")
    wanted = {"base": plan.targets, "random": plan.targets}
    wanted |= {selection_name(m, t): (t,) for t in plan.targets for m in prepared.methods if m != "random"}

    def cell(selection: str, target: str) -> dict:
        return cell_of(prepared.digest, plan, seed, selection, target)

    missing = {
        selection: targets
        for selection, targets in wanted.items()
        if any(cells.get(cell(selection, target)) is None for target in targets)
    }
    if not missing:
        return
    kept = output / "base.pt"
    key = json.dumps(cell("base", ""), sort_keys=True)
    base = torch.load(kept, map_location=trainer.device) if kept.exists() else {}
    if base.get("key") != key:
        say(f"seed {seed}: base")
        trainer.reset(seed)
        trainer.fit(prepared.selection("base", plan.base_tokens), 1, False, seed)
        weights = {name: each.clone() for name, each in trainer.model.state_dict().items()}
        base = {"key": key, "weights": weights}
        buffer = io.BytesIO()
        torch.save(base, buffer)
        _write(kept, buffer.getbuffer())
    digest = hashlib.sha256()
    for each in base["weights"].values():
        digest.update(each.cpu().numpy().tobytes())
    for selection, targets in missing.items():
        started = time.monotonic()
        trainer.model.load_state_dict(base["weights"])
        if selection != "base":
            ids = prepared.selection(selection, experiment.tokens)
            trainer.fit(ids, experiment.epochs, True, seed)
        found = [
            trainer.bits_per_byte(prepared.target(target), prepared.heldout[target]["bytes"])
            for target in targets
        ]
        seconds = (time.monotonic() - started) / len(targets)
        for target, value in zip(targets, found, strict=True):
            result = {"bits_per_byte": value, "base": digest.hexdigest()[:16]}
            cells.add(cell(selection, target), result, seconds)
        say(f"seed {seed}: {selection}, {np.mean(found):.4f} bits per byte")


def _write(path: Path, content: bytes | memoryview) -> None:
    """Write a file in one move."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
