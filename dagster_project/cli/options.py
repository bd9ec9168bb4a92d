"""What all commands share: configuration, home, how much is said, and how errors end a command.

What belongs here: options of more than one command, and what follows from them. What does not: any command
(``commands``), where configuration and home are looked for (``dagster_project/configured.py``).
"""

from __future__ import annotations

import gc
import inspect
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsir_dagster.as_json import as_json
from dsir_dagster.configured import CONVENTIONAL, find_config, find_home
from dsir_dagster.terminal import Terminal, as_typed, lines

if TYPE_CHECKING:
    from dsir_dagster.resources.workspace import Workspace

#: A file or a pipe has no width of its own, but for what COLUMNS says.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
out = Terminal(width=_WIDTH)
err = Terminal(stderr=True, soft_wrap=True)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="YAML",
        help=f"The configuration. Default: DSIR_CONFIG, else {CONVENTIONAL} of this folder.",
    ),
]
Configs = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        metavar="YAML",
        help="The configuration; repeat it to name all that share the home. Default as elsewhere.",
    ),
]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="FOLDER", help="Folder of outputs and catalog. Default: DSIR_HOME, else .dsir."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what failed, and the result.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what Dagster logs, too.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]


@dataclass(frozen=True)
class Shared:
    """The options that all commands of a pipeline have.

    Attributes
    ----------
    configs : list of Path
        At least one.
    home : Path
    quiet, verbose : bool
    """

    configs: list[Path]
    home: Path
    quiet: bool
    verbose: bool

    @property
    def out(self) -> Terminal:
        """Standard output for all but the last line."""
        return Terminal(width=_WIDTH, quiet=True) if self.quiet else out

    def say(self, text: str) -> None:
        """Tell what is going on, unless nobody wants to know."""
        self.out.print(text, style="dim")

    def workspace(self) -> Workspace:
        """Open the pipeline."""
        return self.workspaces()[0]

    def workspaces(self) -> list[Workspace]:
        """Open the pipeline of each configuration."""
        from dsir_dagster.resources.workspace import Workspace

        if not gc.isenabled():  # what is imported by now stays to the end (`dagster_project/__main__.py`)
            gc.freeze()
            gc.enable()
        return [Workspace(config, self.home) for config in self.configs]


def _one(
    config: Config = None, home: Home = None, quiet: Quiet = False, verbose: Verbose = False
) -> None: ...


def _many(
    config: Configs = None, home: Home = None, quiet: Quiet = False, verbose: Verbose = False
) -> None: ...


def command(
    app: typer.Typer, example: str, needs_home: bool = False, several: bool = False
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a command of a function whose first parameter is :class:`Shared`.

    Parameters
    ----------
    app : Typer
    example : str
        Shown below its help: lines as they are typed.
    needs_home : bool
        Whether it needs an existing home, and must not create one.
    several : bool
        Whether it takes several configurations.
    """

    def made(function: Callable[..., int]) -> Callable[..., int]:
        def called(**values: Any) -> int:
            def body() -> int:
                shared = _shared(*(values.pop(name) for name in ("config", "home", "quiet", "verbose")))
                if needs_home and not shared.home.exists():
                    text = f"{shared.home}: there is no home here; `dsir run` creates one, or name another with --home"
                    err.print(text, style="red")
                    return 1
                return function(shared, **values)

            return reporting(function.__name__, body)

        return _register(
            app, function, called, example, inspect.signature(_many if several else _one, eval_str=True)
        )

    return made


def plain_command(app: typer.Typer, example: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a command of a function that needs no pipeline."""

    def made(function: Callable[..., int]) -> Callable[..., int]:
        def called(**values: Any) -> int:
            return reporting(function.__name__, lambda: function(**values))

        return _register(app, function, called, example)

    return made


def _register(
    app: typer.Typer,
    function: Callable[..., int],
    called: Callable[..., int],
    example: str,
    shared: inspect.Signature | None = None,
) -> Callable[..., int]:
    """Register ``called`` under the name, the help and the parameters of ``function``, and shared ones."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    parameters = [*own[1:], *shared.parameters.values()] if shared else own
    keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    called.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]  # Typer reads it
    called.__annotations__ = {each.name: each.annotation for each in keyword}
    first, *rest = (inspect.getdoc(function) or "").split("\n\n")
    shown = "\b\n" + "\n".join(["Example:", *(f"  {line}" for line in example.split("\n"))])
    app.command(function.__name__, help="\n\n".join([first, *rest, shown]), short_help=first)(called)
    return function


def _shared(config: Path | list[Path] | None, home: Path | None, quiet: bool, verbose: bool) -> Shared:
    given = config if isinstance(config, list) else [config] if config else []

    def announce(text: str) -> None:
        if not quiet:
            err.print(text, style="dim")

    options = [f"--config {shlex.quote(str(each))}" for each in given]
    options += [f"--home {shlex.quote(str(home))}"] if home else []
    as_typed.options = "".join(f" {option}" for option in options)
    if verbose:
        import logging

        logger = logging.getLogger("dagster")
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.StreamHandler())
    return Shared(given or [find_config(say=announce)], find_home(home), quiet, verbose)


class Stopped(BaseException):
    """Someone stopped the command; the message says what becomes of its work."""


def reporting(name: str, body: Callable[[], int]) -> int:
    """Run a command; return the exit code. Errors are reported in a line.

    Raises
    ------
    Stopped
        By Ctrl-C, SIGTERM or in the UI. Typer would take a KeyboardInterrupt for its own.
    """
    try:
        return body()
    except BaseException as error:
        if is_interrupt(error):
            rest = "; finished outputs stay, and `dsir run` goes on from there" if name == "run" else ""
            raise Stopped(f"stopped{rest}") from None
        if not isinstance(error, Exception):
            raise
        import dagster as dg

        from dsir_dagster.resources.errors import explained
        from dsir_dagster.resources.settings import ConfigError

        if isinstance(error, ConfigError):
            err.print(lines(str(error), "red"))
            return 2
        said = error.description or str(error) if isinstance(error, dg.Failure) else explained(error)
        if said is None:  # a bug: the traceback helps whoever fixes it
            raise
        err.print(lines(said, "red"))
        return 1


def is_interrupt(error: BaseException) -> bool:
    """Tell whether an exception means that someone stopped the command."""
    if isinstance(error, KeyboardInterrupt):
        return True
    dagster = sys.modules.get("dagster")
    return dagster is not None and isinstance(error, dagster.DagsterExecutionInterruptedError)


def print_document(found: object) -> None:
    """Print what a command found as JSON."""
    try:
        print(as_json(found), flush=True)
    except BrokenPipeError:
        out.on_broken_pipe()


def name_program(path: str) -> None:
    """Find out how this program was called, so that messages show commands as they can be typed.

    Parameters
    ----------
    path : str
        ``sys.argv[0]``.
    """
    as_typed.options = ""
    found = shutil.which("dsir")
    if path == "dsir" or (found and os.path.exists(path) and os.path.samefile(found, path)):
        as_typed.program = "dsir"
    elif Path(path).name == "__main__.py":
        as_typed.program = f"{_short(sys.executable)} -m dsir_dagster"
    else:
        as_typed.program = _short(path)


def _short(path: str) -> str:
    """Return a path as it is typed in this folder."""
    relative = os.path.relpath(path)
    return shlex.quote(path if relative.startswith("..") else relative)


def selections(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a selection."""
    import yaml

    try:
        named = ctx.params.get("config")
        content = yaml.safe_load(find_config(named[0] if isinstance(named, list) else named).read_text())
        names = [each["name"] for each in content["selections"]]
    except Exception:  # while someone types, nothing is wrong yet
        return []
    return [name for name in names if isinstance(name, str) and name.startswith(incomplete)]
