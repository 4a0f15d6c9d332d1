"""What every store can do, and the values that go in and come out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gust_torch.artifacts.metadata import json_problems

MAX_NAME_LENGTH = 128

_RESERVED_TYPES = ("job", "code", "run_table")
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_name(name: str, what: str) -> None:
    """Check the name or the type of an artifact by W&B's rule, whatever the store.

    Raises:
        ValueError: It is empty, longer than 128 characters, has characters other than letters, digits, "_",
            "-" and ".", or consists of dots.
    """
    if not _NAME.fullmatch(name) or not name.strip("."):
        raise ValueError(
            f"the {what} {name!r} must consist of letters, digits, '_', '-' and '.'; choose another {what}"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"the {what} has {len(name)} characters, more than {MAX_NAME_LENGTH}; choose a shorter {what}"
        )


def check_type(kind: str) -> None:
    """Check the type of an artifact: a name that W&B keeps for no purpose of its own.

    Raises:
        ValueError: It is no name, or W&B's own.
    """
    check_name(kind, "artifact type")
    if kind in _RESERVED_TYPES or kind.startswith("wandb-"):
        raise ValueError(f"the artifact type {kind!r} is W&B's own; choose another, such as dataset or model")


@dataclass(frozen=True)
class Upload:
    """A file to be stored as an artifact.

    Attributes:
        name: Name of the artifact, such as "burgers1d-subset".
        type: Its type, such as "dataset".
        path: The file.
        metadata: A JSON object that describes it.
        sha256: Digest of the file's bytes, 64 hex digits.
    """

    name: str
    type: str
    path: Path
    metadata: Mapping[str, object]
    sha256: str

    def __post_init__(self) -> None:
        """Check names, digest and metadata."""
        check_name(self.name, "artifact name")
        check_type(self.type)
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 must be 64 lower-case hex digits, not {self.sha256!r}")
        for keys, text in json_problems(dict(self.metadata)):
            raise ValueError(f"{'.'.join(map(str, ('metadata', *keys)))} {text}")


@dataclass(frozen=True)
class Reference:
    """Where an artifact went.

    Attributes:
        text: What the registry's `artifact:` takes.
        url: Where a person finds it: a page, a URL or a folder.
        notes: Lines to print about what was done and what is left to do.
    """

    text: str
    url: str
    notes: tuple[str, ...] = ()

    def report(self) -> str:
        """Return the notes, and the reference alone on the last line."""
        return "\n".join([*self.notes, self.text])


class RemoteFile(Protocol):
    """A stored file, to be read."""

    @property
    def name(self) -> str:
        """File name without folders, such as "burgers1d_subset_v1.tar.gz"."""

    @property
    def size(self) -> int | None:
        """Bytes; None where the store does not tell."""

    @property
    def supports_ranges(self) -> bool:
        """Whether `read_range` works, also from several threads at once."""

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop, not including stop.

        Raises:
            ValueError: The store cannot be reached or returns fewer bytes.
        """

    def download(self, path: Path) -> None:
        """Write the whole file to `path`, replacing what is there; after an error `path` may be incomplete.

        Raises:
            ValueError: The store cannot be reached.
        """


class Store(Protocol):
    """A place that takes artifacts."""

    def check(self, name: str, file: str) -> None:
        """Find out whether a file of this name can be stored, before time is spent on its bytes.

        Args:
            name: Name of the artifact.
            file: Name of the file, without folders.

        Raises:
            ValueError: A name that no reference may hold, no login, no such bucket, no permission, or the
                store cannot be reached.
        """

    def put(self, upload: Upload) -> Reference:
        """Store a file; readers see all of it or nothing.

        Raises:
            ValueError: As for `check`; the file changed meanwhile; its bytes are stored with other metadata.
        """
