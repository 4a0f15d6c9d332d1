"""Lazy reading of HDF5 files: complete ones, files being written, files of killed writers."""

import errno
import os
import re
from pathlib import Path

import h5py
import numpy as np

from solvers.common.hdf5 import schema
from solvers.common.hdf5.live import SIGNATURE, SUPERBLOCK_BYTES, Superblock, decode
from solvers.common.hdf5.schema import HDF5Info
from solvers.common.hdf5.structure import DAMAGED, Contents
from solvers.common.urls import redact

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_HELD = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}
# Pattern of an error's classes, errno's name and message -> what is said; the first that fits.
_CAUSES = {
    r"\bE[MN]FILE\b": "too many files are open in this process; close some, or allow more (`ulimit -n 4096`)",
    "[Cc]redentials|TokenRetrieval": "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
    "AWS_ENDPOINT_URL for another store than AWS), or log in to that store",
    "ImportError": "{reason}; install it, or download the file",
    r"required filter|filter[^0-9/]*\d|plugin": "it is compressed by an HDF5 filter that is not installed "
    "({reason}); install hdf5plugin",
    r"FileNotFoundError|\bENOENT": "there is no such file; check the path",
    r"PermissionError|\bEACCES|\bEPERM|Forbidden": "access denied ({reason}); check its permissions, or your "
    "login",
    r"\b(EIO|ESTALE|ETIMEDOUT|ENOTCONN|ECONNREFUSED)\b": "the file system or server does not answer "
    "({reason}); try again when it does",
    "://": "cannot be opened ({reason}); check the URL, or download the file",
    "": "HDF5 cannot open it ({reason}); " + DAMAGED,
}


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
            remedy = "another program is writing it, or died while it did: then run `h5clear -s` on it"
            raise ValueError(f"{path}: HDF5 cannot open it ({_reason(error)}); {remedy}") from error
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
        contents = Contents(file, str(path), allow_external=allow_external)
        if contents.group(schema.FIELDS) is None:
            raise ValueError(f"{path}: expected a group /fields, found {sorted(file)}; convert it first")
        contents.readable(schema.FIELDS)  # loads the plugins of their filters
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
    if lock in _HELD:
        text = "another program has it open for writing; wait until it is done, or end it"
    elif lock is not None:
        text = f"its file system has no locks ({os.strerror(lock).lower()}); set HDF5_USE_FILE_LOCKING=FALSE"
    else:
        words = [*(kind.__name__ for kind in type(error).__mro__), errno.errorcode.get(number or 0, "")]
        said = " ".join([*words, reason, "://" if "://" in shown else ""])
        text = next(text for pattern, text in _CAUSES.items() if re.search(pattern, said))
        text = text.format(reason=reason)
    return ValueError(f"{shown}: {text}")


def num_samples(file: h5py.File) -> int:
    """Frames that are complete in every dataset: the time is committed last, so its length says.

    Where there is no time, the shortest field says.
    """
    contents = Contents(file, file.filename)
    lengths = [len(dataset) for dataset in contents.readable(schema.FIELDS).values()]
    if "time" in contents.readable(schema.COORDINATES):
        lengths.append(contents.num_times() or 0)
    return min(lengths, default=0)


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
        fields = contents.readable(schema.FIELDS)
        if not fields:
            for name in contents.names(schema.FIELDS):
                contents.dataset(f"{schema.FIELDS}/{name}")
            raise ValueError(f"{path}: /fields: expected a dataset, found none; write the file again")
        count = num_samples(file)
        coordinates = contents.readable(schema.COORDINATES)
        trajectory = coordinates["trajectory"][:count] if "trajectory" in coordinates else np.zeros(0)
        return HDF5Info(
            path=Path(path),
            num_samples=count,
            fields={name: (dataset.shape[1:], dataset.dtype) for name, dataset in fields.items()},
            coordinates={name: item[:] for name, item in coordinates.items() if name in ("x", "y")},
            parameters={name: item[()] for name, item in contents.readable(schema.PARAMETERS).items()},
            scalars=tuple(contents.readable(schema.SCALARS)),
            metadata=contents.metadata,
            num_trajectories=max(1, len(np.unique(trajectory))),
        )


def _check_bytes(path: Path) -> Superblock | None:
    """Superblock of a file that starts as HDF5 does; None where it is of an older version.

    HDF5 may begin behind a user block of 512 bytes or a power of two times that.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none" if not path.exists() else "something that is no file"
        raise ValueError(f"{path}: expected an HDF5 file, found {found}; check the path")
    try:
        with path.open("rb") as file:
            head, size = file.read(SUPERBLOCK_BYTES), os.fstat(file.fileno()).st_size
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
        found = f"expected {superblock.end_of_file} bytes, found {size}"
        raise ValueError(f"{path}: truncated, {found}; copy or download it again")
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
