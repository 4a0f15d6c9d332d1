"""THE common HDF5 format: its public functions, and a command line (info, validate, repack)."""

import sys

from solvers.common.cli import main
from solvers.common.reader import num_samples, open_file, read_hdf5_info
from solvers.common.repack import repack
from solvers.common.schema import FORMAT_VERSION, HDF5Info
from solvers.common.validation import validate
from solvers.common.writer import HDF5Writer

__all__ = [
    "FORMAT_VERSION",
    "HDF5Info",
    "HDF5Writer",
    "num_samples",
    "open_file",
    "read_hdf5_info",
    "repack",
    "validate",
]

if __name__ == "__main__":
    sys.exit(main())
