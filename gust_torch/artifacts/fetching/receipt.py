"""What a fetch has put into a root, <root>/.gust/<dataset>.json: the next one knows its own files by it."""

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gust_torch.artifacts.registry.entry import DatasetEntry
from solvers.common.files import written_aside
from solvers.common.provenance import provenance

FORMAT_VERSION = 1
FOLDER = ".gust"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stamp:
    """By what a file or folder is recognized without reading it.

    Attributes:
        files: Number of files; 1 for a file.
        size: Their bytes.
        times: mtime in nanoseconds; of a folder, a digest over names, sizes and times of all below it.
    """

    files: int
    size: int
    times: str

    @classmethod
    def of(cls, path: Path) -> "Stamp | None":
        """Return what lies at a path now; None if that is neither a file nor a folder (links are not
        followed)."""
        if path.is_symlink():
            return None
        if path.is_file():
            status = path.stat()
            return cls(1, status.st_size, str(status.st_mtime_ns))
        if not path.is_dir():
            return None
        digest, files, size = hashlib.sha256(), 0, 0
        for name, status in sorted(_tree(str(path), "")):
            digest.update(
                f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape")
            )
            files, size = files + 1, size + status.st_size
        return cls(files, size, digest.hexdigest())


def _tree(folder: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Names and states of all that is no folder below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _tree(entry.path, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)


@dataclass(frozen=True)
class Receipt:
    """What a fetch put into a root.

    Attributes:
        name: The dataset.
        sha256: Digest of its tarball.
        files: Name in the root -> stamp.
    """

    name: str
    sha256: str
    files: Mapping[str, Stamp]

    @classmethod
    def of(cls, entry: DatasetEntry, folder: Path) -> "Receipt":
        """Return the receipt for a dataset's files in a folder.

        Raises:
            ValueError: A file is missing.
        """
        files = {}
        for member in entry.splits.values():
            stamp = Stamp.of(folder / member)
            if stamp is None:
                raise ValueError(f"{folder / member} vanished while it was being fetched; repeat the command")
            files[member] = stamp
        return cls(entry.name, entry.sha256, files)

    def holds(self, member: str, path: Path) -> bool:
        """Whether the file at a path is the one that was put there."""
        return member in self.files and Stamp.of(path) == self.files[member]

    def write(self, path: Path) -> None:
        """Write the receipt, whole or not at all."""
        content = {"format_version": FORMAT_VERSION, **asdict(self), **provenance()}
        with written_aside(path) as file:
            file.write(f"{json.dumps(content, indent=1)}\n".encode())


def read_receipt(path: Path) -> Receipt | None:
    """Read a receipt; None where there is none, or none that can be understood."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {content['format_version']}")
        if content["name"] != path.stem:
            raise ValueError(f"of {content['name']!r}")
        files = {member: Stamp(**stamp) for member, stamp in content["files"].items()}
        return Receipt(content["name"], content["sha256"], files)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning("%s is no receipt (%s); what it stood for counts as unknown", path, error)
        return None


def read_receipts(root: Path, *, without: Collection[str]) -> list[Receipt]:
    """Receipts of all other datasets in a root."""
    paths = sorted(path for path in (root / FOLDER).glob("*.json") if path.stem not in without)
    return [receipt for path in paths if (receipt := read_receipt(path)) is not None]
