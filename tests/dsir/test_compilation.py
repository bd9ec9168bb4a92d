"""Compiled code: made ready before it is needed, and whoever waits for it is told."""

import os
import subprocess
import sys
import threading

import pytest

from dsir.compilation import warm_up
from dsir.features import FeatureSpec

FIRST_USE = """
import sys
import numpy as np
import pyarrow as pa
from numba.core.dispatcher import Dispatcher
from dsir.compilation import warm_up
from dsir.evaluation import masked_totals
from dsir.features import Features, FeatureSpec, featurize
from dsir.featurizer.checksum import checksum
from dsir.importance import log_weights
from dsir.noise import gumbel_noise

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("dsir.")]
    functions = {each for module in modules for each in vars(module).values() if isinstance(each, Dispatcher)}
    return {f"{each.py_func.__module__}.{each.__name__}": each.signatures for each in functions if each.signatures}

said = []
spec = FeatureSpec(ngrams=1)
warm_up(spec, said.append)
assert len(said) == 1 and "compiling" in said[0], said
assert warm_up(spec, said.append) < 0.5 and len(said) == 1
before = compiled()

features = featurize(pa.array(["a b a", "c"]), spec)
totals = features.totals(spec.buckets)
masked_totals(features, (features.n_tokens > 1)[None, :], totals[None, :])
batch = features.to_arrow()
sink = pa.BufferOutputStream()
with pa.ipc.new_file(sink, batch.schema) as file:
    file.write_batch(batch)
body = pa.ipc.read_message(batch.serialize()).body
checksum(np.frombuffer(body, np.uint64))
batch = pa.ipc.open_file(sink.getvalue()).get_batch(0)
log_weights(batch, np.ones((2, spec.buckets)))
stored = Features.from_arrow(batch)
gumbel_noise(stored.content_hash, 1, "name")
gumbel_noise(stored.content_hash[stored.n_tokens > 1], 1, "name")
assert compiled() == before
assert len(before) > 5 and "dsir.importance._weigh" in before, before
"""


def test_warm_up_is_silent_once_compiled():
    warm_up(FeatureSpec(), lambda text: None)
    announced: list[str] = []
    running = set(threading.enumerate())
    assert warm_up(FeatureSpec(), announced.append) < 1
    assert announced == []
    # Other tests of this process may have left threads; a timer that was started is cancelled, and ends at once.
    for thread in set(threading.enumerate()) - running:
        thread.join(1)
        assert not thread.is_alive(), thread


@pytest.mark.slow
def test_warm_up_announces_a_compilation_before_it_starts_and_leaves_none_for_later(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", FIRST_USE], env=environment, check=True)


def test_numba_is_loaded_without_linear_algebra_which_others_can_still_import():
    """Nothing here multiplies matrices in compiled code; SciPy's linear algebra would be 16 MiB for nothing."""
    code = """
import sys
from dsir.compilation import load_numba, warm_up
from dsir.features import FeatureSpec
load_numba()
warm_up(FeatureSpec(), lambda text: None)
assert "scipy.linalg" not in sys.modules
import scipy.linalg
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
