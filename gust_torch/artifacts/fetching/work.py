"""The part of a fetch that takes time: datasets side by side, each downloaded, checked, unpacked."""

import concurrent.futures
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gust_torch.artifacts.fetching.cache import ArtifactCache
from gust_torch.artifacts.fetching.root import DatasetRoot
from gust_torch.artifacts.fetching.watch import Watch
from gust_torch.artifacts.registry.entry import DatasetEntry
from gust_torch.artifacts.stores.contract import RemoteFile
from solvers.common.progress import Progress

FETCHED = "fetched"
FROM_CACHE = "from cache"

Outcome = str | ValueError | OSError  # FETCHED, FROM_CACHE, or why not

_PARALLEL_DATASETS = 4
_MEGABYTE = 10**6


@dataclass(frozen=True)
class Work:
    """What it takes to put one dataset in place.

    Attributes:
        root: Where to.
        cache: Where tarballs are kept.
        openers: Name of a dataset -> what finds its stored file; None for no network.
        workers: Ranges to download at the same time, over all datasets.
        overwrite: Whether files in the root that no fetch put there may be replaced.
    """

    root: DatasetRoot
    cache: ArtifactCache
    openers: Mapping[str, Callable[[], RemoteFile] | None]
    workers: int
    overwrite: bool

    def run(self, entries: Sequence[DatasetEntry], num_bytes: int) -> dict[str, Outcome]:
        """Works on all datasets; one that fails does not stop the others.

        Args:
            entries: The datasets.
            num_bytes: Bytes to be downloaded and unpacked, for the progress display.

        Returns:
            Name -> where its tarball was, or what went wrong.
        """
        if not entries:
            return {}
        parallel = min(len(entries), self.workers, _PARALLEL_DATASETS)
        with _Display(num_bytes) as display, concurrent.futures.ThreadPoolExecutor(parallel) as pool:
            watch = Watch(display.count)
            workers = max(1, self.workers // parallel)
            try:
                futures = {entry.name: pool.submit(self._put, entry, workers, watch) for entry in entries}
                return {name: _outcome(future) for name, future in futures.items()}
            except BaseException:
                watch.stop.set()  # Ctrl-C reaches the main thread only
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _put(self, entry: DatasetEntry, workers: int, watch: Watch) -> str:
        """Put one dataset in place and says where its tarball was."""
        tarball, cached = self.cache.provide(entry, self.openers[entry.name], workers=workers, watch=watch)
        self.root.install(entry, tarball, overwrite=self.overwrite, watch=watch)
        return FROM_CACHE if cached else FETCHED


def _outcome(future: "concurrent.futures.Future[str]") -> Outcome:
    """Wait for a dataset."""
    try:
        return future.result()
    except (ValueError, OSError) as error:
        return error


class _Display:
    """Progress in megabytes, counted by several threads."""

    def __init__(self, num_bytes: int) -> None:
        self._progress = Progress(num_bytes // _MEGABYTE, unit="MB", description="fetch")
        self._lock = threading.Lock()
        self._bytes = 0

    def count(self, size: int) -> None:
        """Count bytes."""
        with self._lock:
            before = self._bytes // _MEGABYTE
            self._bytes += size
            if self._bytes // _MEGABYTE > before:
                self._progress.update(self._bytes // _MEGABYTE - before)

    def __enter__(self) -> "_Display":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None and self._bytes >= _MEGABYTE:
            self._progress.close()
