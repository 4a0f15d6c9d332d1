"""Atomic restart files: arrays and plain values in one .npz, readable without pickle."""

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

CheckpointValue = str | int | float | bool | None

_META_KEY = "meta_json"
_ARRAY_PREFIX = "array_"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """State of a stopped run.

    Attributes:
        arrays: The solver's state by name.
        meta: Parameters and counters.
    """

    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, CheckpointValue]


def save_checkpoint(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], meta: Mapping[str, CheckpointValue]
) -> None:
    """Replace the checkpoint at `path` as a whole: a kill at any moment leaves the old one or the new one.

    Args:
        path: File to write; `.{name}.partial` beside it is used meanwhile.
        arrays: Arrays of any plain dtype, restored bit for bit.
        meta: Plain values; floats are restored bit for bit, NaN and infinity included.

    Raises:
        ValueError: If an array holds python objects, or `meta` something else than plain values.
        OSError: If the disk is full; the old checkpoint stays.
    """
    path = Path(path)
    objects = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if objects:
        raise ValueError(f"arrays: expected plain dtypes, got python objects in {objects}; convert them")
    try:
        text = json.dumps(dict(meta))
    except TypeError as error:
        raise ValueError(f"meta: expected str, int, float, bool or None, got {error}; convert it") from error
    entries = {_ARRAY_PREFIX + name: np.asarray(array) for name, array in arrays.items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            _write_npz(file, {_META_KEY: np.array(text), **entries})
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: If there is none, or the file is not a checkpoint or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a checkpoint, found none; start without --resume")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = [name for name in archive.files if name.startswith(_ARRAY_PREFIX)]
            arrays = {name.removeprefix(_ARRAY_PREFIX): archive[name] for name in names}
            meta = json.loads(str(archive[_META_KEY][()]))
    except (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected a checkpoint written by save_checkpoint, cannot read it ({error}); "
            "delete it and start again with --overwrite"
        ) from error
    return Checkpoint(arrays, meta)


def changed_parameters(saved: Mapping[str, CheckpointValue], now: Mapping[str, CheckpointValue]) -> list[str]:
    """Parameters that differ between a checkpoint and the present command, one phrase for each.

    Returns:
        Phrases such as "Re: 1000.0 in the checkpoint, 2000.0 now"; empty when nothing changed.
    """
    phrases = []
    for name in [*saved, *(name for name in now if name not in saved)]:
        if name not in saved:
            phrases.append(f"{name}: absent from the checkpoint, {now[name]} now")
        elif name not in now:
            phrases.append(f"{name}: {saved[name]} in the checkpoint, absent now")
        elif saved[name] != now[name] and not _both_nan(saved[name], now[name]):
            phrases.append(f"{name}: {saved[name]} in the checkpoint, {now[name]} now")
    return phrases


def _write_npz(file: BinaryIO, entries: Mapping[str, np.ndarray]) -> None:
    """`np.savez` for any entry names, and without pickle on every numpy version."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in entries.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _both_nan(first: CheckpointValue, second: CheckpointValue) -> bool:
    """Whether both values are NaN, which compares unequal to itself."""
    return first != first and second != second


def _sync_folder(folder: Path) -> None:
    """Put a rename on the disk itself."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
