"""Foreign files -> our formats. Grids: PDEBench families -> the common HDF5 format."""
