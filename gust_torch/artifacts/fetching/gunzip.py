"""Reads a gzip file forwards: in bounded memory, member after member, decompressing ahead in a thread."""

import queue
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

BLOCK_BYTES = 1 << 20  # decompressed at a time, however well the input compresses
_INPUT_BYTES = 256 << 10
_AHEAD_BLOCKS = 8
_GZIP = 16 + zlib.MAX_WBITS  # zlib then reads the header and checks length and CRC at the end


class DamagedGzip(ValueError):
    """The compressed bytes are not what gzip wrote."""


def gzip_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Decompressed blocks of at most `BLOCK_BYTES`, of all gzip members in a row.

    Raises:
        DamagedGzip: The bytes are not gzip, damaged, cut short, or followed by something else.
    """
    data = file.read(_INPUT_BYTES)
    if not data:
        raise DamagedGzip("it is empty")
    first = True
    while data:
        decompressor = zlib.decompressobj(wbits=_GZIP)
        while not decompressor.eof:
            try:
                block = decompressor.decompress(data, BLOCK_BYTES)
            except zlib.error as error:
                raise DamagedGzip(
                    f"it is {'no' if first else 'damaged or no longer'} gzip ({error})"
                ) from error
            first = False
            if block:
                yield block
            data = decompressor.unconsumed_tail
            if not data and not decompressor.eof:
                # An empty read is no end yet: zlib may hold back output that did not fit into the last block.
                data = file.read(_INPUT_BYTES)
                if not data and not block:
                    raise DamagedGzip("it is cut short")
        data = decompressor.unused_data or file.read(_INPUT_BYTES)


class _End:
    """Behind the last block: how the input ended."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


class GzipStream:
    """The decompressed bytes of a gzip file, as much of a file object as `tarfile` needs to read headers.

    It only goes forwards, and refuses the long reads and skips that a hostile header asks for. A context
    manager, which ends the thread.

    Attributes:
        header: What `read` returned last.
    """

    # A name of 1024 bytes needs far less. tarfile nests headers and searches them in quadratic time: of some
    # megabytes they would cost a gigabyte of memory and hours.
    MAX_HEADER_BYTES = 16 << 10

    def __init__(self, path: Path) -> None:
        """Open the file and starts decompressing."""
        self._file = path.open("rb", buffering=0)
        self._blocks: queue.Queue[bytes | _End] = queue.Queue(_AHEAD_BLOCKS)
        self._closing = threading.Event()
        self._current = memoryview(b"")
        self._end: _End | None = None
        self._position = 0
        self.header = b""
        self._thread = threading.Thread(target=self._decompress, name="gunzip", daemon=True)
        self._thread.start()

    def __enter__(self) -> "GzipStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        while self._thread.is_alive():
            try:
                self._blocks.get(timeout=0.05)  # the thread may be waiting for room
            except queue.Empty:
                continue
        self._file.close()

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end.

        Raises:
            ValueError: More is asked for than a header may have; the file is damaged.
        """
        if not 0 <= size <= self.MAX_HEADER_BYTES:
            raise ValueError("a header is too long")
        self.header = b"".join(self.take(size))
        return self.header

    def seek(self, position: int) -> None:
        """Skips forwards, over no more than a header may have.

        Raises:
            ValueError: The position lies behind, or too far ahead.
        """
        self.read(position - self._position)

    def take(self, size: int) -> Iterator[memoryview]:
        """Yield the next `size` bytes in blocks; ends early where the file does.

        Raises:
            ValueError: The file is damaged.
        """
        while size > 0:
            if not len(self._current):
                self._next_block()
                if self._end is not None:
                    return
            part = self._current[:size]
            self._current = self._current[len(part) :]
            self._position += len(part)
            size -= len(part)
            yield part

    def _next_block(self) -> None:
        """Wait for the thread.

        Raises:
            ValueError: The file is damaged from here on.
        """
        if self._end is None:
            item = self._blocks.get()
            if isinstance(item, bytes):
                self._current = memoryview(item)
                return
            self._end = item
        if self._end.error is not None:
            raise self._end.error

    def _decompress(self) -> None:
        """Return the thread: blocks, then the end."""
        error: Exception | None = None
        try:
            for block in gzip_blocks(self._file):
                self._blocks.put(block)
                if self._closing.is_set():
                    break
        except (DamagedGzip, OSError, MemoryError) as caught:
            error = caught
        finally:
            self._blocks.put(_End(error))
