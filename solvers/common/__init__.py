"""What all solvers share: the common HDF5 format, restart files, progress display and provenance."""
