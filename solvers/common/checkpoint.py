"""Atomic restart files: arrays and plain values in one .npz, readable without pickle."""

import contextlib
import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

CheckpointValue = str | int | float | bool | None

_META_KEY = "meta_json"


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
        ValueError: If an array is named as the reserved entry or holds python objects.
        OSError: If the disk is full; the old checkpoint stays.
    """
    path = Path(path)
    if _META_KEY in arrays:
        raise ValueError(f"arrays: the name {_META_KEY!r} is reserved; choose another")
    objects = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if objects:
        raise ValueError(f"arrays: expected plain dtypes, got python objects in {objects}; convert them")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_META_KEY: np.array(json.dumps(dict(meta)))}, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
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
            arrays = {name: archive[name] for name in archive.files if name != _META_KEY}
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
