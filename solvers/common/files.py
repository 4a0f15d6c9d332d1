"""Files and folders that appear complete or not at all, one writer at a time, and their checksums."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import filelock

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def path_aside(path: Path) -> Iterator[Path]:
    """Yield the hidden name `.NAME.part` beside `path`, which gets the true name when the block ends well.

    The bytes are on the disk before the rename, so that not even a power cut leaves half a file. An error
    removes the file. A symbolic link is followed, the mode of a replaced file is kept.
    """
    target = path.resolve()
    partial = hidden_part(target)
    try:
        with naming(path):
            partial.unlink(missing_ok=True)  # of a killed process
            yield partial
            sync(partial)
            if target.exists():
                partial.chmod(target.stat().st_mode & 0o777)
            os.replace(partial, target)
            sync(target.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends well, see `path_aside`."""
    with path_aside(path) as partial, partial.open("xb") as file:  # follows no link
        yield file
        file.flush()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let system errors that name no file, such as those of a full disk, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def sync(path: Path) -> None:
    """Put a file's bytes, or the names in a folder, on the disk itself."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WriterLock:
    """Exclusive lock `.{name}.lock` beside an output, which the system drops when its holder dies.

    Args:
        output: What is written.
        timeout: Seconds to wait for another holder; negative waits for ever.

    Raises:
        BlockingIOError: If another writer has it.
        FileNotFoundError: If there is no such folder, which `filelock` would make.
    """

    def __init__(self, output: Path, *, timeout: float = 0.0) -> None:
        if not output.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(output.parent))
        path = output.with_name(f".{output.name}.lock")
        self._lock: filelock.BaseFileLock = filelock.FileLock(path, timeout=timeout)
        try:
            try:
                self._lock.acquire()
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                # Some network file systems have no locks: that a file is there is the lock then.
                path.unlink(missing_ok=True)
                self._lock = filelock.SoftFileLock(path.with_suffix(".softlock"), timeout=timeout)
                self._lock.acquire()
        except filelock.Timeout:
            raise BlockingIOError(
                f"{output}: another process is writing it; wait for that run or end it, then try again"
            ) from None

    def release(self) -> None:
        """Give the lock up and remove its file while it is held: who waits for it notices."""
        with suppress(PermissionError):  # Windows keeps files that are open; there `filelock` removes it
            os.unlink(self._lock.lock_file)
        self._lock.release()

    def inherit(self) -> None:
        """Let processes started from now on with `close_fds=False` hold it too, until they end (POSIX)."""
        descriptor = self._lock._context.lock_file_fd
        if os.name == "posix" and descriptor is not None:
            os.set_inheritable(descriptor, True)

    def __enter__(self) -> "WriterLock":
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def file_sha256(path: Path, count: Callable[[int], object] | None = None) -> str:
    """SHA-256 of a file, 64 hex digits; `count` is called with the size of each block that was read."""
    digest = hashlib.sha256()
    block = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(memoryview(block)[:size])
            if count is not None:
                count(size)
    return digest.hexdigest()


def format_bytes(size: float) -> str:
    """Bytes for people, e.g. "16.9 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def hidden_part(target: Path) -> Path:
    """Name the hidden `.NAME.part` in which `target` is made."""
    return target.with_name(f".{target.name}.part")


def replace_folder(part: Path, target: Path) -> None:
    """Rename a complete folder to its name; an older one under that name goes.

    A kill between the two renames leaves the older folder as `.NAME.old` and the complete one as `part`: the
    same call then ends it.
    """
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
    os.replace(part, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
