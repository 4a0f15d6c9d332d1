"""Solvers of 2D fluid flows that write the common HDF5 format (numpy and Dedalus only, never torch)."""
