"""What packing gives: the tarball, and its entry for the registry."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gust_torch.artifacts.registry.entry import DatasetEntry, entry_yaml

_PLACEHOLDER = "<entity>/<project>/{}:v0"


@dataclass(frozen=True)
class Package:
    """A packed data set.

    Attributes:
        name: Of the data set.
        kind: grid, mesh or particles.
        splits: Split name -> member.
        metadata: Describes the data.
        tarball: artifacts/NAME.tar.gz.
        manifest: artifacts/NAME.manifest.json.
        sha256: Of the tarball.
        size: Bytes of the tarball.
        unpacked: Bytes of the files in it.
        written: False where this very tarball was there already.
    """

    name: str
    kind: str
    splits: Mapping[str, str]
    metadata: Mapping[str, object]
    tarball: Path
    manifest: Path
    sha256: str
    size: int
    unpacked: int
    written: bool

    def entry(self, artifact: str) -> DatasetEntry:
        """Return the registry's entry.

        Args:
            artifact: Where the tarball lies.
        """
        return DatasetEntry(name=self.name, **self._values(artifact))  # type: ignore[arg-type]

    def entry_yaml(self, artifact: str | None = None) -> str:
        """Text of the entry; without an artifact it has a placeholder, which `check` points at."""
        return entry_yaml(self.name, self._values(artifact or placeholder(self.name)))

    def _values(self, artifact: str) -> dict[str, object]:
        """Everything in the entry but its name."""
        return {
            "artifact": artifact,
            "kind": self.kind,
            "splits": dict(self.splits),
            "sha256": self.sha256,
            "size": self.size,
            "unpacked": self.unpacked,
            "metadata": dict(self.metadata),
        }


def placeholder(name: str) -> str:
    """Return an artifact to fill in: `burgers1d_subset_v1` -> `<entity>/<project>/burgers1d-subset:v0`."""
    stem, _, version = name.rpartition("_v")
    return _PLACEHOLDER.format((stem if stem and version.isdigit() else name).replace("_", "-"))
