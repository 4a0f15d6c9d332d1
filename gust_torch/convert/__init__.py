"""Foreign files -> our formats. Grids: PDEBench families -> the common HDF5 format."""

from gust_torch.convert.conversion import Result, convert
from gust_torch.convert.families import FAMILIES, Family, family_names, get_family
from gust_torch.convert.pdebench import convert_family, convert_pattern
from gust_torch.convert.plan import Options

__all__ = [
    "FAMILIES",
    "Family",
    "Options",
    "Result",
    "convert",
    "convert_family",
    "convert_pattern",
    "family_names",
    "get_family",
]
