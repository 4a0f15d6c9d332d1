"""One writer for one file: a lock that the operating system drops when its holder dies."""

import errno
import fcntl
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class WriterLock:
    """Exclusive lock on the file `.{name}.lock` beside an output, which readers of the output ignore."""

    def __init__(self, output: Path) -> None:
        """Take the lock.

        Raises:
            BlockingIOError: If another writer has it.
        """
        self._path = output.with_name(f".{output.name}.lock")
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._descriptor)
                raise BlockingIOError(
                    f"{output}: another process is writing it; wait for that run or end it, then try again"
                ) from None
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    os.close(self._descriptor)
                    raise
                logger.warning("%s: this file system has no locks; make sure that one run writes it", output)
            if self._is_current():
                return
            os.close(self._descriptor)

    def release(self) -> None:
        """Give the lock up and remove its file."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _is_current(self) -> bool:
        """Whether the locked file still has its name (an earlier holder may have removed it)."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False
