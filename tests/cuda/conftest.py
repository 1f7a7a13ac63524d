"""Which of these tests run where: those of results in a process of their own, started by ``tests/test_cuda.py``."""

import os
import sys

import numpy as np

SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM")
if SIMULATOR is None:  # the tests' usual process
    collect_ignore = ["test_kernels.py", "test_lines.py"]
elif SIMULATOR == "0":  # a GPU
    collect_ignore = ["test_lines.py"]
else:
    collect_ignore = ["test_compilation.py"]
    # The simulator's threads wait for each other, each time for as long as Python lets a thread run: 5 ms by default.
    sys.setswitchinterval(1e-4)

    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    def array(self, shape, dtype):
        """Return the shared array of a line: in Numba's own, threads that come at once may each make one."""
        line = sys._getframe(1)
        return self._allocations.setdefault((line.f_code.co_filename, line.f_lineno), np.empty(shape, dtype))

    FakeCUDAShared.array = array
