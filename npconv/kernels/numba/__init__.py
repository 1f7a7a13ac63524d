"""The algorithms compiled by Numba for the CPU. Importing a module of this folder imports Numba."""
