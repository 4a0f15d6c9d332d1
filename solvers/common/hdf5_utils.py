"""THE common HDF5 format: its public functions, and a command line (info, validate, repack)."""

import sys

from solvers.common.hdf5.commands import main
from solvers.common.hdf5.reader import num_samples, open_file, read_hdf5_info
from solvers.common.hdf5.repack import repack
from solvers.common.hdf5.schema import FORMAT_VERSION, HDF5Info
from solvers.common.hdf5.validation import validate
from solvers.common.hdf5.writer import HDF5Writer

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
