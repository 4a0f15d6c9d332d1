"""artifact.json: what is known of a stored file, kept beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from gust_torch.artifacts.stores.contract import Upload
from solvers.common.provenance import provenance

FILE_NAME = "artifact.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Description:
    """What is known of a stored file.

    Attributes:
        name: Name of the artifact.
        type: Its type.
        file: Name of the file beside the description.
        size: Bytes.
        sha256: Digest of the bytes.
        metadata: What the uploader said of it.
    """

    name: str
    type: str
    file: str
    size: int
    sha256: str
    metadata: Mapping[str, object]

    def __post_init__(self) -> None:
        """Check types, and that the file lies beside the description."""
        texts = (self.name, self.type, self.file, self.sha256)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.metadata, Mapping):
            raise ValueError("name, type, file and sha256 must be strings, metadata an object")
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size must be a count of bytes, not {self.size!r}")
        if "/" in self.file or self.file in ("", ".", "..", FILE_NAME):
            raise ValueError(f"file must be a name without folders, not {self.file!r}")

    @staticmethod
    def of(upload: Upload, size: int) -> "Description":
        """Describe an upload of `size` bytes."""
        # Through JSON and back, so that tuples become the lists that a reader finds.
        metadata = json.loads(json.dumps(upload.metadata))
        return Description(upload.name, upload.type, upload.path.name, size, upload.sha256, metadata)

    @staticmethod
    def from_json(text: bytes) -> "Description":
        """Read a description.

        Raises:
            ValueError: It is none.
        """
        try:
            values = json.loads(text)
            return Description(
                values["name"],
                values["type"],
                values["file"],
                values["size"],
                values["sha256"],
                values["metadata"],
            )
        except KeyError as error:
            raise ValueError(f"it has no {error.args[0]}") from error
        except (TypeError, RecursionError) as error:
            raise ValueError("it is no JSON object") from error

    def to_json(self) -> bytes:
        """Return the file's bytes; the same for the same description and program."""
        values = {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "type": self.type,
            "file": self.file,
            "size": self.size,
            "sha256": self.sha256,
            "metadata": self.metadata,
            "provenance": provenance(),
        }
        return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"

    def words(self) -> str:
        """Type and metadata for a message."""
        return f"{self.type} {json.dumps(self.metadata, sort_keys=True)}"
