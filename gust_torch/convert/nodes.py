"""Opens a foreign HDF5 file and checks its datasets' names, types, ranks and lengths against a family."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from gust_torch.convert.families import Array, Family

_AXIS = {"n": "samples", "t": "times", "x": "points along x", "y": "points along y", "c": "components"}


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
        raise ValueError(f"{path}: cannot be opened ({_first_line(error)}); download it again") from error
    with file:
        yield file


def sample_nodes(file: h5py.File, family: Family, max_samples: int | None) -> list[tuple[str, h5py.Group]]:
    """Return the file itself with key "", or the first `max_samples` groups by name, which need not be
    contiguous.

    Raises:
        ValueError: A family of groups without any.
    """
    if not family.groups:
        return [("", file)]
    groups = [(key, file[key]) for key in sorted(file)[:max_samples] if isinstance(file[key], h5py.Group)]
    if not groups:
        raise ValueError(
            f"{file.filename}: no sample groups (0000, 0001, ...), nothing to convert; download it again"
        )
    return groups


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
    return f"{node.file.filename}: dataset {node.name.strip('/') + '/' + key if node.name != '/' else key!r}"


def get_datasets(node: h5py.Group, family: Family) -> list[h5py.Dataset]:
    """Datasets of all arrays of a family."""
    return [get_dataset(node, array.key) for array in family.arrays]


def _array_sizes(node: h5py.Group, array: Array) -> dict[str, int]:
    """Axis letter -> length of one dataset, after checking type and rank."""
    dataset = get_dataset(node, array.key)
    where = place(node, array.key)
    if dataset.dtype.kind != "f" or dataset.dtype.itemsize not in (2, 4, 8):
        raise ValueError(
            f"{where} holds {dataset.dtype}, expected float32 or float64; download the file again"
        )
    if dataset.ndim != len(array.axes):
        axes = ", ".join(array.axes)
        raise ValueError(
            f"{where} has shape {dataset.shape}, expected {len(array.axes)} axes ({axes}); reshape it"
        )
    sizes = dict(zip(array.axes, dataset.shape, strict=True))
    if sizes.get("1", 1) != 1 or (len(array.fields) > 1 and sizes["c"] != len(array.fields)):
        raise ValueError(
            f"{where} has shape {dataset.shape}, expected length "
            f"{len(array.fields)} on the component axis ({', '.join(array.axes)}); download the file again"
        )
    sizes.pop("1", None)
    for letter, size in sizes.items():
        if size == 0:
            raise ValueError(
                f"{where} has shape {dataset.shape}: no {_AXIS[letter]}, nothing to convert; leave it out"
            )
    return sizes


def common_sizes(nodes: list[tuple[str, h5py.Group]], family: Family) -> dict[str, int]:
    """Axis letter -> length, equal over all arrays of all groups; "c:KEY" -> components of array KEY.

    Raises:
        ValueError: A wrong type, rank or length, with file, group and key.
    """
    common: dict[str, tuple[int, str]] = {}
    for key, node in nodes:
        for array in family.arrays:
            for letter, size in _array_sizes(node, array).items():
                if letter == "c":
                    continue
                first, origin = common.setdefault(letter, (size, f"{key}/{array.key}".strip("/")))
                if size != first:
                    raise ValueError(
                        f"{place(node, array.key)} has {size} {_AXIS[letter]}, {origin} has {first}; "
                        "the file is damaged: download it again"
                    )
    components = {
        f"c:{array.key}": _array_sizes(nodes[0][1], array)["c"]
        for array in family.arrays
        if "c" in array.axes
    }
    return {letter: size for letter, (size, _) in common.items()} | components


def _first_line(error: Exception) -> str:
    """HDF5 errors have many lines; the first says what failed."""
    return str(error).splitlines()[0]
