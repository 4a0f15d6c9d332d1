"""Looks the datasets of a foreign HDF5 file up: each is what it must be, stored, in this file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gust_torch.convert.families import Array, Family
from solvers.common.hdf5.reader import open_error
from solvers.common.hdf5.storage import storage_problem
from solvers.common.hdf5.structure import NUMBERS, Contents, Rule

Nodes = Sequence[tuple[str, h5py.Group]]
"""The file itself with key "", or each sample's group with its name."""

AGAIN = "download the file again"
AXES = {"n": "samples", "t": "times", "x": "points along x", "y": "points along y", "c": "components"}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what HDF5 says of damage that only shows while it reads into a ValueError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # the last two of types
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise open_error(path, error) from error


def sample_nodes(file: h5py.File, family: Family, max_samples: int | None) -> Nodes:
    """Return the file itself, or the first `max_samples` groups by name, which need not be contiguous.

    Raises:
        ValueError: A family of groups without any.
    """
    if not family.groups:
        return [("", file)]
    contents = Contents(file, file.filename)
    names = [name for name in sorted(file, key=str) if not isinstance(file.get(name), h5py.Dataset)][
        :max_samples
    ]
    if not names:
        raise ValueError(
            f"{file.filename}: no sample groups (0000, 0001, ...), nothing to convert; download it again"
        )
    groups = [(name, contents.look(name, Rule(group=True))) for name in names]
    if lost := [name for name, group in groups if group is None]:
        raise ValueError(f"{file.filename}: /{lost[0]} is listed and not there; {AGAIN}")
    return groups


def field_dataset(node: h5py.Group, array: Array) -> h5py.Dataset:
    """Dataset of an array of a family, of the right type and rank.

    Raises:
        ValueError: Missing, or something else, with file, key and remedy.
    """
    axes = ", ".join(AXES.get(letter, "1") for letter in array.axes)
    dataset = _look(
        node, array.key, Rule(shape=f"({axes})", ranks=(len(array.axes),), kinds="f", remedy=AGAIN)
    )
    if dataset.dtype.itemsize not in (2, 4, 8):
        raise ValueError(
            f"{place(node, array.key)} holds {dataset.dtype}, expected float32 or float64; {AGAIN}"
        )
    return dataset


def read_numbers(node: h5py.Group, key: str) -> np.ndarray:
    """Read a small numeric dataset as float64.

    Raises:
        ValueError: It is missing or not numeric.
    """
    dataset = _look(node, key, Rule(shape="", ranks=(0, 1, 2), kinds=NUMBERS, remedy=AGAIN))
    check_stored(node, key, dataset, dataset.shape)
    return np.asarray(dataset[()], dtype=np.float64)


def check_stored(node: h5py.Group, key: str, dataset: h5py.Dataset, used: Sequence[int]) -> None:
    """Refuse values that nobody has written: HDF5 reads them as zeros.

    Args:
        node: Holds the dataset.
        key: Names it there.
        dataset: What is read.
        used: Entries that are read along each axis, from the first.
    """
    problem = storage_problem(dataset, used[0] if used else None)
    if problem and not (dataset.chunks and _covers(dataset, used)):
        raise ValueError(f"{place(node, key)}: {problem}; {AGAIN}, or take fewer with --samples")


def place(node: h5py.Group, key: str) -> str:
    """File and path of a dataset, for messages."""
    return f"{node.file.filename}: {node.name.rstrip('/')}/{key}"


def _look(node: h5py.Group, key: str, rule: Rule) -> h5py.Dataset:
    dataset: Any = Contents(node.file, node.file.filename).look(f"{node.name}/{key}".strip("/"), rule)
    if dataset is None:
        raise ValueError(
            f"{place(node, key)} is missing; the file is damaged or of another family: download it again"
        )
    return dataset


def _covers(dataset: h5py.Dataset, used: Sequence[int]) -> bool:
    """Whether every chunk is stored that holds some of the first `used` entries along each axis."""
    if dataset.is_virtual:
        return False
    stored = 0

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        nonlocal stored
        stored += all(offset < count for offset, count in zip(chunk.chunk_offset, used, strict=True))

    dataset.id.chunk_iter(note)
    return stored == int(np.prod([-(-n // c) for n, c in zip(used, dataset.chunks, strict=True)]))
