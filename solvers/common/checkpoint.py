"""Atomic restart files: arrays and plain values in one .npz, readable without pickle."""

import dataclasses
import json
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from solvers.common.files import written_aside
from solvers.common.hdf5_utils import HDF5Writer

CheckpointValue = str | int | float | bool | None

_META_KEY = "meta_json"
_ARRAY_PREFIX = "array_"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """State of a stopped run: the solver's arrays by name, and its parameters and counters."""

    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, CheckpointValue]


def save_checkpoint(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], meta: Mapping[str, CheckpointValue]
) -> None:
    """Replace the checkpoint at `path` as a whole: a kill at any moment leaves the old one or the new one.

    Args:
        path: File to write.
        arrays: Arrays of any plain dtype, restored bit for bit.
        meta: Plain values; floats are restored bit for bit, NaN and infinity included.
    """
    entries = {_ARRAY_PREFIX + name: np.asarray(array) for name, array in arrays.items()}
    text = np.array(json.dumps(dict(meta)))
    with written_aside(Path(path)) as file:
        np.savez(file, **{_META_KEY: text}, **entries)  # type: ignore[arg-type]


def load_checkpoint(path: str | os.PathLike[str], *, arrays: bool = True) -> Checkpoint:
    """Read a checkpoint, or its `meta` only; a ValueError where there is none, or a damaged one."""
    if not Path(path).is_file():
        raise ValueError(
            f"{path}: expected a checkpoint, found none; start without --resume, or anew with --overwrite"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = [name for name in archive.files if arrays and name.startswith(_ARRAY_PREFIX)]
            state = {name.removeprefix(_ARRAY_PREFIX): archive[name] for name in names}
            return Checkpoint(state, json.loads(str(archive[_META_KEY][()])))
    except (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        text = f"expected a checkpoint, cannot read it ({error}); start again with --overwrite"
        raise ValueError(f"{path}: {text}") from error


def check_parameters(
    path: Path,
    saved: Mapping[str, CheckpointValue],
    now: Mapping[str, CheckpointValue],
    *,
    apart_from: Collection[str] = (),
) -> None:
    """Refuse to continue a run with other parameters than its checkpoint has, `apart_from` some.

    Raises:
        ValueError: Naming those that differ; names that an older checkpoint lacks are passed over.
    """
    if changes := [
        f"{name}: {value} in the checkpoint, {now.get(name, 'absent')} now"
        for name, value in saved.items()
        if name not in apart_from and now.get(name, "absent") != value
    ]:
        text = f"the run to resume has other parameters ({'; '.join(changes)})"
        raise ValueError(f"{path}: {text}; leave them out, or start anew with --overwrite")


@contextmanager
def all_or_nothing(writer: HDF5Writer | None) -> Iterator[None]:
    """Remove the output where its first frame or checkpoint cannot be written: it could not be continued."""
    try:
        yield
    except BaseException:
        if writer is not None:
            with suppress(OSError):
                writer.close(complete=False)
            writer.path.unlink(missing_ok=True)
        raise
