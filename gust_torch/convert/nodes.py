"""Opens a foreign HDF5 file and looks its datasets up."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from gust_torch.convert.families import Family

Nodes = Sequence[tuple[str, h5py.Group]]
"""The file itself with key "", or each sample's group with its name."""

AGAIN = "download the file again"


@contextmanager
def open_source(path: Path) -> Iterator[h5py.File]:
    """Open a foreign HDF5 file for reading.

    Raises:
        ValueError: Missing, empty, not HDF5 or truncated.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check --root or --pattern")
    if not h5py.is_hdf5(path):
        kind = "is empty" if path.stat().st_size == 0 else "is not an HDF5 file"
        raise ValueError(f"{path}: {kind}; download it again")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: cannot be opened ({reason}); download it again") from error
    with file:
        yield file


def sample_nodes(file: h5py.File, family: Family, max_samples: int | None) -> Nodes:
    """Return the file itself, or the first `max_samples` groups by name, which need not be contiguous.

    Raises:
        ValueError: A family of groups without any.
    """
    if not family.groups:
        return [("", file)]
    groups = [(key, file[key]) for key in sorted(file) if file.get(key, getclass=True) is h5py.Group]
    if not groups:
        raise ValueError(
            f"{file.filename}: no sample groups (0000, 0001, ...), nothing to convert; download it again"
        )
    return groups[:max_samples]


def get_dataset(node: h5py.Group, key: str) -> h5py.Dataset:
    """Dataset `key` of a file or group.

    Raises:
        ValueError: Missing, or a group.
    """
    item = node.get(key)
    if isinstance(item, h5py.Dataset):
        return item
    what = "is a group, not a dataset" if isinstance(item, h5py.Group) else "is missing"
    raise ValueError(
        f"{place(node, key)} {what}; the file is damaged or of another family: download it again"
    )


def place(node: h5py.Group, key: str) -> str:
    """File, group and key of a dataset, for messages."""
    return f"{node.file.filename}: dataset {f'{node.name}/{key}'.strip('/')!r}"


def read_numbers(node: h5py.Group, key: str) -> np.ndarray:
    """Read a small numeric dataset as float64.

    Raises:
        ValueError: It is missing or not numeric.
    """
    dataset = get_dataset(node, key)
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise ValueError(f"{place(node, key)} holds {dataset.dtype}, expected numbers; {AGAIN}")
    return np.asarray(dataset[()], dtype=np.float64)
