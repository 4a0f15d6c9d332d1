"""Open files of a dataset: one handle per process and file, opened when first read from."""

import os
from collections import OrderedDict
from collections.abc import Sequence

import h5py

from gust_torch.data.files import SourceFile, open_source
from gust_torch.data.readers import FieldReader

# Below the usual limit of 1024 descriptors a process, with room for a few datasets.
MAX_OPEN_FILES = 128


class FileHandles:
    """The readers of each file, for the process that asks.

    HDF5 handles must cross neither a fork nor a pickle: a child that finds its parent's handles drops them
    and opens its own, and pickling (spawned workers) leaves them out. The least recently used file is closed
    when more than `MAX_OPEN_FILES` are open.
    """

    def __init__(self, sources: Sequence[SourceFile]) -> None:
        """Args: sources: The files; none is opened yet."""
        self._sources = sources
        self._open: OrderedDict[int, tuple[h5py.File, list[FieldReader]]] = OrderedDict()
        self._pid = os.getpid()

    def readers(self, index: int) -> list[FieldReader]:
        """One reader for each field of file `index`.

        Raises:
            ValueError: The file cannot be opened (any more).
        """
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        if index not in self._open:
            source = self._sources[index]
            file = open_source(source.path)
            groups: dict[str, list[tuple[int, int | None]]] = {}
            for i, channel in enumerate(source.channels):
                groups.setdefault(channel.field, []).append((i, channel.component))
            self._open[index] = file, [FieldReader(file, field, group) for field, group in groups.items()]
            if len(self._open) > MAX_OPEN_FILES:
                self._open.popitem(last=False)[1][0].close()
        self._open.move_to_end(index)
        return self._open[index][1]

    def close(self) -> None:
        """Close all files; they open again when needed."""
        for file, _ in self._open.values():
            file.close()
        self._open.clear()

    def __getstate__(self) -> dict[str, object]:
        """Without the open files."""
        return {"_sources": self._sources}

    def __setstate__(self, state: dict[str, Sequence[SourceFile]]) -> None:
        """Start with no open file."""
        self.__init__(state["_sources"])  # type: ignore[misc]
