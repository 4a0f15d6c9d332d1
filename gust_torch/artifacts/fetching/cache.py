"""Downloaded tarballs, kept by their content: <cache>/<sha256>/<dataset>.tar.gz.

A tarball's digest is compared before each use, unless verified.json beside it says that this very file (size,
mtime and ctime) was compared before. What does not match is removed.
"""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gust_torch.artifacts.fetching.download import download, downloaded_bytes
from gust_torch.artifacts.fetching.journal import discard
from gust_torch.artifacts.fetching.lock import waiting_lock
from gust_torch.artifacts.fetching.watch import Watch
from gust_torch.artifacts.registry.entry import DatasetEntry
from gust_torch.artifacts.stores.contract import RemoteFile
from solvers.common.files import file_sha256, written_aside

_VERIFIED = "verified.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verified:
    """A file whose digest was right.

    Attributes:
        file: Its name.
        size: Bytes.
        mtime_ns: Time of its last change.
        ctime_ns: Time of the last change of its inode, which no user can set.
    """

    file: str
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Verified":
        """Return what the file system says now."""
        status = path.stat()
        return cls(path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class ArtifactCache:
    """The cache folder; several processes may use it."""

    def __init__(self, folder: Path) -> None:
        """Names the folder; nothing is touched."""
        self._folder = folder

    def missing_bytes(self, entry: DatasetEntry) -> int:
        """Bytes that are still to come; 0 for a tarball that is there, right or not."""
        if self._find(entry) is not None:
            return 0
        return entry.size - downloaded_bytes(self._part(entry), entry.size)

    def where(self, entry: DatasetEntry) -> Path:
        """Where a tarball goes."""
        return self._folder / entry.sha256 / f"{entry.name}.tar.gz"

    def provide(
        self, entry: DatasetEntry, open_remote: Callable[[], RemoteFile] | None, *, workers: int, watch: Watch
    ) -> tuple[Path, bool]:
        """Return a tarball with the right digest.

        Args:
            entry: The dataset.
            open_remote: Finds the stored file; None for no network.
            workers: Ranges to download at the same time.
            watch: Progress of the download, and stop.

        Returns:
            Its path, and whether it was there already.

        Raises:
            ValueError: It cannot be had, or its digest differs.
            OSError: The disk fails or is full.
        """
        folder = self._folder / entry.sha256
        folder.mkdir(parents=True, exist_ok=True)
        with waiting_lock(folder, watch):
            cached = self._find(entry)
            if cached is not None and self._is_right(cached, entry, watch):
                return cached, True
            if open_remote is None:
                raise ValueError(
                    f"{entry.name} is not in the cache {self._folder}, and --offline forbids the network; "
                    f"run the command once without --offline, or put the tarball at {self.where(entry)}"
                )
            self._download(entry, open_remote(), workers, watch)
            return self.where(entry), False

    def _download(self, entry: DatasetEntry, remote: RemoteFile, workers: int, watch: Watch) -> None:
        """Download a tarball; it gets its name when its digest is right.

        Raises:
            ValueError: Its digest differs.
        """
        part = self._part(entry)
        found = download(remote, part, entry.size, workers=workers, watch=watch)
        if found != entry.sha256:
            discard(part)
            raise ValueError(
                f"{entry.name}: the downloaded {entry.artifact} has the sha256 {found}, the registry expects "
                f"{entry.sha256}; it was removed. Repeat the command; if it happens again, correct the "
                "registry or upload the dataset again"
            )
        os.replace(part, self.where(entry))
        discard(part)
        self._note_verified(self.where(entry))

    def _part(self, entry: DatasetEntry) -> Path:
        """Return the unfinished download."""
        return self._folder / entry.sha256 / "download.part"

    def _find(self, entry: DatasetEntry) -> Path | None:
        """Return a tarball in the cache, perhaps under the name of another dataset with the same content."""
        verified = self._read_verified(entry.sha256)
        names = [self.where(entry).name, *([] if verified is None else [verified.file])]
        paths = [self._folder / entry.sha256 / Path(name).name for name in names]
        return next((path for path in paths if path.is_file()), None)

    def _is_right(self, path: Path, entry: DatasetEntry, watch: Watch) -> bool:
        """Whether a cached tarball has its digest; removes it otherwise."""
        if self._read_verified(entry.sha256) == Verified.of(path):
            return True
        if path.stat().st_size == entry.size and file_sha256(path, lambda _: watch.check()) == entry.sha256:
            self._note_verified(path)
            return True
        log.warning("%s is damaged and was removed", path)
        path.unlink()
        return False

    def _read_verified(self, sha256: str) -> Verified | None:
        """Return the file that was compared last; None if that is not known."""
        try:
            text = (self._folder / sha256 / _VERIFIED).read_text(encoding="utf-8")
            return Verified(**json.loads(text))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None

    def _note_verified(self, path: Path) -> None:
        """Spares the next use the comparison."""
        with written_aside(path.with_name(_VERIFIED)) as file:
            file.write(json.dumps(asdict(Verified.of(path))).encode())
