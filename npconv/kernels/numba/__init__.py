"""The algorithms compiled by Numba for the CPU.

How problems are cut, of which the costs are told as well, needs no Numba: `blocking`, `bands`, `piecing` and `regions`.
Importing any other module of this folder imports it.
"""
