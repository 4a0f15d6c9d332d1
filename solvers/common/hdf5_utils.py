"""THE common HDF5 format: its public functions, and `python -m solvers.common.hdf5_utils info|validate|repack FILE`."""

from solvers.common.reader import num_samples, open_file, read_hdf5_info
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
    "validate",
]
