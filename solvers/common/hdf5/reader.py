"""Lazy reading of HDF5 files: complete ones, files being written, files of killed writers."""

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from solvers.common.hdf5 import schema
from solvers.common.hdf5.live import SIGNATURE, Superblock, decode
from solvers.common.hdf5.schema import HDF5Info, missing_filter, plain_value
from solvers.common.hdf5.structure import DAMAGED, Contents
from solvers.common.urls import redact

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_HELD = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}
_NO_LOGIN = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "TokenRetrievalError",
    "DefaultCredentialsError",
)


def open_hdf5(path: str | os.PathLike[str]) -> h5py.File:
    """Open any HDF5 file for reading: complete, being written, or left by a killed writer.

    A file that is being written shows what was committed when it was opened. HDF5 refuses two handles of
    different kinds on one file in one process, so look at an incomplete file through this function only.
    Where the file system has no locks, none is taken.

    Raises:
        ValueError: If the file is missing, is not HDF5, is truncated, held by a writer or cannot be
            opened; with the remedy.
    """
    path = Path(path)
    superblock = _check_bytes(path)
    try:
        return _open_safely(path, superblock)
    except (OSError, RuntimeError, KeyError) as error:
        if superblock is not None and superblock.open_for_write and not _lock_errno(error):
            raise ValueError(
                f"{path}: HDF5 cannot open it ({_reason(error)}); another program is writing it, or "
                f"died while it "
                "did: then run `h5clear -s` on it"
            ) from error
        raise open_error(path, error) from error


def open_file(path: str | os.PathLike[str], *, allow_external: bool = False) -> h5py.File:
    """Open a file of the common format for reading, see `open_hdf5`.

    Args:
        path: The file.
        allow_external: Let its group of fields be a link to another file.

    Raises:
        ValueError: As `open_hdf5`; or it has no /fields.
    """
    file = open_hdf5(path)
    try:
        if Contents(file, str(path), allow_external=allow_external).group(schema.FIELDS) is None:
            raise ValueError(
                f"{path}: expected a group /fields, found {sorted(file)}; convert it to the common "
                f"format first"
            )
        for dataset in field_datasets(file).values():
            missing_filter(dataset)  # loads what there is
    except BaseException:
        file.close()
        raise
    return file


def open_error(path: str | os.PathLike[str], error: BaseException) -> ValueError:
    """Say why a file or URL cannot be opened, and what to do: the one translator of such errors.

    Args:
        path: The file, as the message names it (without logins and queries).
        error: Of HDF5, of the system, or of fsspec and what it opens URLs with.
    """
    shown, reason = redact(os.fspath(path)), redact(_reason(error))
    number = getattr(error, "errno", None) or _errno_in(reason)
    lock = _lock_errno(error)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if lock in _HELD:
        text = "another program has it open for writing; wait until it is done, or end it"
    elif lock is not None:
        text = f"its file system has no locks ({os.strerror(lock).lower()}); set HDF5_USE_FILE_LOCKING=FALSE"
    elif number in (errno.EMFILE, errno.ENFILE):
        text = (
            "too many files are open in this process; close some, or allow more (`ulimit -n 4096`) "
            "and start again"
        )
    elif kinds & set(_NO_LOGIN) or "credentials" in reason.lower():
        text = (
            "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for "
            "another "
            "store than AWS), or log in to that store"
        )
    elif isinstance(error, ImportError):
        text = f"{reason}; install it, or download the file"
    elif filters := re.search(r"filter[^0-9]*(\d+)|filter '([^']+)'|required filter|plugin", reason):
        name = f" {filters[1] or filters[2]}" if filters[1] or filters[2] else ""
        text = (
            f"it is compressed by the HDF5 filter{name}, which is not installed ({reason}); install "
            f"hdf5plugin"
        )
    elif isinstance(error, FileNotFoundError) or number == errno.ENOENT:
        text = "there is no such file; check the path"
    elif isinstance(error, PermissionError) or number in (errno.EACCES, errno.EPERM) or "Forbidden" in reason:
        text = f"access denied ({reason}); check its permissions, or your login"
    elif number in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNREFUSED):
        text = f"the file system or server does not answer ({reason}); try again when it does"
    elif "://" in shown:
        text = f"cannot be opened ({reason}); check the URL, or download the file"
    else:
        text = f"HDF5 cannot open it ({reason}); {DAMAGED}"
    return ValueError(f"{shown}: {text}")


def field_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Datasets of /fields by name; links that lead nowhere are left out."""
    members = {}
    for name in file[schema.FIELDS]:
        with suppress(KeyError, OSError, RuntimeError):
            members[name] = file[schema.FIELDS][name]
    return {name: item for name, item in members.items() if isinstance(item, h5py.Dataset)}


def num_samples(file: h5py.File) -> int:
    """Frames that are complete in every dataset: the time is committed last, so its length says.

    Where there is no time, the shortest field says.
    """
    lengths = [dataset.shape[0] for dataset in field_datasets(file).values() if dataset.shape]
    if isinstance(time := file.get(schema.TIME), h5py.Dataset) and time.ndim == 1:
        lengths.append(num_times(file))
    return min(lengths, default=0)


def num_times(file: h5py.File) -> int:
    """Return committed times: all of them, less those at the end that a resumed run was about to drop
    (NaN)."""
    time = file[schema.TIME]
    count = len(time)
    while count and not is_complete(file) and np.isnan(time[count - 1]):
        count -= 1
    return count


def is_complete(file: h5py.File) -> bool:
    """Whether no writer can be at work: the file says so, or it says nothing (foreign and older files)."""
    try:
        return not Contents(file, file.filename).is_growing
    except ValueError:  # metadata that are no group
        return True


def read_hdf5_info(path: str | os.PathLike[str]) -> HDF5Info:
    """All that a file says about itself, without reading a frame; what the format does not allow is left out.

    Raises:
        ValueError: As `open_file`, or the file has no field that can be read.
    """
    with open_file(path) as file:
        contents = Contents(file, str(path))
        fields = dict(_readable(contents, schema.FIELDS))
        if not fields:
            for name in contents.names(schema.FIELDS):
                contents.dataset(f"{schema.FIELDS}/{name}")
            raise ValueError(
                f"{path}: /fields: expected at least one dataset, found none; write the file again"
            )
        count = num_samples(file)
        axes = {name: item[:] for name, item in _readable(contents, schema.COORDINATES) if name in ("x", "y")}
        attributes = file[schema.METADATA].attrs.items() if schema.METADATA in file else ()
        return HDF5Info(
            path=Path(path),
            num_samples=count,
            fields={name: (dataset.shape[1:], dataset.dtype) for name, dataset in fields.items()},
            coordinates=axes,
            parameters={name: item[()] for name, item in _readable(contents, schema.PARAMETERS)},
            scalars=tuple(name for name, _ in _readable(contents, schema.SCALARS)),
            metadata={name: plain_value(value) for name, value in attributes},
            num_trajectories=_num_trajectories(contents, count),
        )


def _readable(contents: Contents, group: str) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield what the format allows in a group."""
    for name in contents.names(group):
        if group == schema.COORDINATES and name not in ("x", "y"):
            continue
        try:
            dataset = contents.dataset(f"{group}/{name}")
        except ValueError as error:
            logger.debug("left out: %s", error)
            continue
        if dataset is not None:
            yield name, dataset


def _num_trajectories(contents: Contents, count: int) -> int:
    """Distinct trajectory ids among the first `count` samples; 1 where the file has none."""
    trajectory = contents.dataset(schema.TRAJECTORY)
    if trajectory is None or count == 0:
        return 1
    return len(np.unique(trajectory[:count]))


def _check_bytes(path: Path) -> Superblock | None:
    """Superblock of a file that starts as HDF5 does; None where it is of an older version.

    HDF5 may begin behind a user block of 512 bytes or a power of two times that.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none" if not path.exists() else "something that is no file"
        raise ValueError(f"{path}: expected an HDF5 file, found {found}; check the path")
    try:
        with path.open("rb") as file:
            head, size = file.read(48), os.fstat(file.fileno()).st_size
            start = 512
            while not head.startswith(SIGNATURE) and start < size:
                file.seek(start)
                if file.read(len(SIGNATURE)) == SIGNATURE:
                    return None
                start *= 2
    except OSError as error:
        raise open_error(path, error) from error
    if not head.startswith(SIGNATURE):
        kind = f"a file that starts with {head[:8]!r}" if head else "an empty file"
        raise ValueError(f"{path}: expected an HDF5 file, found {kind}; check the path or download it again")
    superblock = decode(head)
    if superblock is not None and size < superblock.end_of_file:
        raise ValueError(
            f"{path}: truncated, expected {superblock.end_of_file} bytes, found {size}; "
            "copy or download it again"
        )
    return superblock


def _open_safely(path: Path, superblock: Superblock | None) -> h5py.File:
    """Open plainly where no writer can be at work, else in SWMR mode, which repeats torn reads."""
    if superblock is None or superblock.version < 3:
        return _open(path, swmr=False)
    if superblock.open_for_write:
        return _open(path, swmr=True)
    try:
        file = _open(path, swmr=False)
        if is_complete(file):
            return file
        file.close()
    except (OSError, RuntimeError, KeyError):
        # Half-written metadata, or damage, which then fails again here.
        return _open(path, swmr=True)
    try:
        return _open(path, swmr=True)
    except OSError:
        # This process holds the file open plainly already, and HDF5 wants all its handles alike.
        return _open(path, swmr=False)


def _open(path: Path, *, swmr: bool) -> h5py.File:
    """Open for reading, without locks where the file system has none."""
    try:
        return h5py.File(path, "r", swmr=swmr)
    except OSError as error:
        # HDF5 refuses two handles of one process that differ in this, too.
        if _lock_errno(error) not in _NO_LOCKS and "locking flag" not in str(error):
            raise
        return h5py.File(path, "r", swmr=swmr, locking=False)


def _reason(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    lines = str(error).strip().splitlines()
    return lines[0].strip("'\"") if lines else type(error).__name__


def _errno_in(reason: str) -> int | None:
    """Return the system's error number that HDF5 quotes in its message."""
    found = re.search(r"errno = (\d+)", reason)
    return int(found[1]) if found else None


def _lock_errno(error: BaseException) -> int | None:
    """Return the system's error number where a lock was refused; None for other errors."""
    reason = str(error)
    if "unable to lock file" not in reason:
        return None
    return _errno_in(reason) or getattr(error, "errno", None) or errno.EAGAIN
