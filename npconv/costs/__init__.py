"""What an algorithm costs: how long it should take, and what memory it works in.

The figures of `Rate` for float32 are near what ``pytest bench`` shows for one core of a server of 2023; the others, and
all of CUDA's, are guesses from them. They serve to rank candidates and to tell milliseconds from minutes, no more.

`Rate` is the model of textbook algorithms, `Effort` that of engines; the other modules are parts of the latter.
"""

from npconv.costs.effort import Effort
from npconv.costs.textbook import Rate, plane_matrix, prepared_bytes, region_matrix

__all__ = ["Effort", "Rate", "plane_matrix", "prepared_bytes", "region_matrix"]
