"""What became of each cache: the lines on standard output and the manifest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gust_torch.latents.store import LatentCache
from solvers.common.files import file_sha256, written_aside
from solvers.common.provenance import provenance

FORMAT_VERSION = 1
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Outcome:
    """A finished cache.

    Attributes:
        task: Such as "burgers1d".
        split: "train", "val" or "test".
        folder: Where it lies.
        key: Its key, 64 hex digits.
        shape: (num_samples, latent_len, latent_dim).
        dtype: Of the latents.
        num_bytes: Of all files.
        num_encoded: Samples that this call encoded; 0 where the cache was up to date.
        seconds: That it took.
    """

    task: str
    split: str
    folder: Path
    key: str
    shape: tuple[int, int, int]
    dtype: str
    num_bytes: int
    num_encoded: int
    seconds: float

    @classmethod
    def of(cls, folder: Path, *, num_encoded: int = 0, seconds: float = 0.0) -> "Outcome":
        """Look at a finished cache.

        Raises:
            ValueError: It is damaged.
        """
        cache = LatentCache.open(folder)
        return cls(
            task=cache.index.task,
            split=cache.index.split,
            folder=folder,
            key=cache.key.hex,
            shape=(len(cache), *cache.latent_shape),
            dtype=cache.key.dtype,
            num_bytes=sum(path.stat().st_size for path in folder.iterdir()),
            num_encoded=num_encoded,
            seconds=seconds,
        )

    def line(self) -> str:
        """One line: folder, samples, size, key, rate."""
        num_samples, latent_len, latent_dim = self.shape
        state = f"new, {self.num_encoded / max(self.seconds, 1e-9):.3g} samples/s"
        return (
            f"{self.folder}  {num_samples} samples of {latent_len}x{latent_dim} {self.dtype}, "
            f"{format_bytes(self.num_bytes)}, key {self.key[:12]}, "
            f"{state if self.num_encoded else 'up to date'}"
        )


def format_bytes(count: float) -> str:
    """As "84.1 MiB"."""
    power = 0
    while count >= 1024 and power < len(UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.1f} {UNITS[power]}" if power else f"{count:.0f} {UNITS[0]}"


def write_manifest(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the list of caches with the sha256 of each file; files that an older list knows are not read.

    Raises:
        OSError: It cannot be written.
    """
    known = _known_files(path)
    entries = [_entry(outcome, known) for outcome in outcomes]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format_version": FORMAT_VERSION, "caches": entries, **provenance()}
    with written_aside(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def _entry(outcome: Outcome, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the manifest says of a cache."""
    index = LatentCache.open(outcome.folder).index
    files = [_file(path, known) for path in sorted(outcome.folder.iterdir())]
    return {
        "task": outcome.task,
        "split": outcome.split,
        "folder": str(outcome.folder),
        "key": outcome.key,
        "num_samples": outcome.shape[0],
        "shape": list(outcome.shape),
        "dtype": outcome.dtype,
        "bytes": sum(file["bytes"] for file in files),
        "files": files,
        "encoder": index.key.encoder,
        "source": index.source,
        "data": asdict(index.data),
        "provenance": dict(index.provenance),
    }


def _file(path: Path, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a file of a cache: path, size, time of change, content."""
    status = path.stat()
    file: dict[str, Any] = {"name": path.name, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    older = known.get(str(path))
    if older is not None and all(older.get(name) == value for name, value in file.items()):
        return dict(older)
    return {**file, "sha256": file_sha256(path)}


def _known_files(path: Path) -> dict[str, dict[str, Any]]:
    """Files of an older manifest by their paths; none where there is no manifest that we understand."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(Path(entry["folder"]) / file["name"]): file
            for entry in content["caches"]
            for file in entry["files"]
            if isinstance(file["sha256"], str)
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
