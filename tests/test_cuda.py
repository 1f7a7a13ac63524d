"""The CUDA backend, as far as it can be seen without a GPU: that it says so, and the tests that the simulator runs.

With a GPU, ``NUMBA_ENABLE_CUDASIM=0 pytest tests/cuda`` runs the same tests on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npconv
from npconv import backends

FOLDER = Path(__file__).parent / "cuda"


def test_simulator():
    """Numba takes the simulator or the driver when it is imported, so the simulator has a process of its own."""
    arguments = ["-q", "-x", "--color=no", "-p", "no:cacheprovider", str(FOLDER)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=FOLDER.parents[1],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, f"pytest in the simulator returned {done.returncode}:\n{done.stdout}"
    assert " passed" in done.stdout, done.stdout


@pytest.mark.skipif(backends.missing("cuda") is None, reason="the CUDA backend can run here")
def test_without_a_device_the_error_says_what_is_missing():
    missing = r"(?s)backend 'cuda' cannot run here: .*(driver|GPU|pip install)"
    with pytest.raises(npconv.CudaUnavailableError, match=missing):
        npconv.conv2d(np.ones((3, 3)), np.ones((2, 2)), backend="cuda")
