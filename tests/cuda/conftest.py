"""Which of these tests run where: those of results in a process of their own, started by ``tests/test_cuda.py``."""

import os
import sys

SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM")
if SIMULATOR is None:  # the tests' usual process
    collect_ignore = ["test_kernels.py", "test_lines.py"]
elif SIMULATOR == "0":  # a GPU
    collect_ignore = ["test_lines.py"]
else:
    collect_ignore = ["test_compilation.py"]
    # The simulator's threads wait for each other, each time for as long as Python lets a thread run: 5 ms by default.
    sys.setswitchinterval(1e-4)
