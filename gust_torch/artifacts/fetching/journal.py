"""Which ranges of an unfinished download are on the disk: a line a range, so that a kill loses little.

{"size": 1234567890, "range_bytes": 8388608}
0
3
1
"""

import json
import os
import threading
import time
from pathlib import Path

from gust_torch.artifacts.fetching.digest import RangesDigest
from gust_torch.artifacts.fetching.watch import Watch
from solvers.common.files import written_aside

SAVE_SECONDS = 1.0  # between saves: each first puts the file's bytes on the disk

_JOURNAL_SUFFIX = ".ranges"


class PartialFile:
    """A file that is written in ranges, by several threads, across several processes one after the other.

    A context manager; what was written is recorded even when it ends with an error.

    Attributes:
        path: The unfinished file.
    """

    def __init__(self, path: Path, size: int, range_bytes: int) -> None:
        """Continues the file or begins it.

        Args:
            path: The unfinished file; its journal lies beside it.
            size: Bytes of the whole.
            range_bytes: Bytes of each range but the last.

        Raises:
            OSError: The files cannot be written.
        """
        self.path, self._size, self._range_bytes = path, size, range_bytes
        self._journal = journal_path(path)
        self._finished = read_finished(path, size, range_bytes)
        self._unsaved: list[int] = []
        self._last_save = time.monotonic()
        self._lock = threading.Lock()
        if not self._finished:
            discard(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.truncate(self._file, size)
        self._digest = RangesDigest(self._file, size, range_bytes)
        lines = [json.dumps({"size": size, "range_bytes": range_bytes}), *map(str, sorted(self._finished))]
        with written_aside(self._journal) as journal:  # anew, because a kill may have cut off its last line
            journal.write("".join(f"{line}\n" for line in lines).encode())

    @property
    def pending(self) -> list[tuple[int, int]]:
        """Ranges (start, stop) that are missing."""
        starts = range(0, self._size, self._range_bytes)
        return [
            (start, min(start + self._range_bytes, self._size))
            for start in starts
            if start // self._range_bytes not in self._finished
        ]

    def write(self, start: int, data: bytes) -> None:
        """Write one range, from any thread.

        Raises:
            OSError: The disk is full, for example.
        """
        view = memoryview(data)
        position = start
        while len(view):
            written = os.pwrite(self._file, view, position)
            view, position = view[written:], position + written
        with self._lock:
            self._finished.add(start // self._range_bytes)
            self._unsaved.append(start // self._range_bytes)
            if time.monotonic() - self._last_save >= SAVE_SECONDS:
                self._save()

    def hash_finished(self, watch: Watch) -> None:
        """Hashes what is complete from the start of the file.

        Raises:
            Stopped: The work is to end.
        """
        self._digest.advance(self._finished, watch)

    def sha256(self, watch: Watch) -> str:
        """Hex digest of the whole file, once nothing is pending.

        Raises:
            Stopped: The work is to end.
        """
        self.hash_finished(watch)
        return self._digest.hexdigest()

    def __enter__(self) -> "PartialFile":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._save()
        finally:
            os.close(self._file)

    def _save(self) -> None:
        """Record what was written; the bytes reach the disk before the line that says so."""
        os.fsync(self._file)
        with self._journal.open("a", encoding="utf-8") as file:
            file.write("".join(f"{index}\n" for index in self._unsaved))
        self._unsaved.clear()
        self._last_save = time.monotonic()


def read_finished(path: Path, size: int, range_bytes: int) -> set[int]:
    """Numbers of the ranges that an earlier process has finished; none if its file was another one."""
    try:
        header, *lines = journal_path(path).read_text(encoding="utf-8").split("\n")
        if json.loads(header) != {"size": size, "range_bytes": range_bytes} or path.stat().st_size != size:
            return set()
        # What follows the last line break was cut off by a kill.
        return {int(line) for line in lines[:-1]} & set(range(-(-size // range_bytes)))
    except (FileNotFoundError, ValueError):
        return set()


def discard(path: Path) -> None:
    """Remove an unfinished file and its journal, the journal first."""
    journal_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def journal_path(path: Path) -> Path:
    """Where the journal of an unfinished file lies."""
    return path.with_name(path.name + _JOURNAL_SUFFIX)
