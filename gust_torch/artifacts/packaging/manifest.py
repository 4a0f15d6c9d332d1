"""The manifest beside a tarball: what is in it, where that came from, and how it was packed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gust_torch.artifacts.packaging.gzip_blocks import recipe
from gust_torch.artifacts.packaging.tar_stream import Member, list_members, read_exactly
from solvers.common.files import written_aside
from solvers.common.provenance import provenance

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Tarball:
    """A tarball that was written.

    Attributes:
        sha256: Hex digest.
        size: Bytes.
        digests: Member -> sha256 of its contents.
    """

    sha256: str
    size: int
    digests: Mapping[str, str]


def write_manifest(path: Path, content: Mapping[str, object]) -> None:
    """Write a manifest as JSON, aside and renamed."""
    with written_aside(path) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def make_manifest(
    description: Mapping[str, object], tarball: Tarball, file_name: str, members: Sequence[Member]
) -> dict[str, object]:
    """Content of a manifest.

    Args:
        description: Name, task, kind, splits, metadata and sources of the data set.
        tarball: What was written.
        file_name: Its name.
        members: What is in it.
    """
    return {
        "format_version": FORMAT_VERSION,
        **description,
        "tarball": {
            "file": file_name,
            "sha256": tarball.sha256,
            "size": tarball.size,
            "unpacked": sum(member.size for member in members),
            "compression": recipe(),
        },
        "files": _listing(members, tarball.digests),
        "provenance": provenance(),
    }


def existing_tarball(path: Path, manifest: Path, members: Sequence[Member], workers: int) -> Tarball | None:
    """Return the tarball at `path` where it and its manifest are what packing `members` would make; else
    None.

    Reading and hashing take a fraction of the time of packing.

    Args:
        path: The tarball.
        manifest: Its manifest.
        members: What would be packed.
        workers: Threads to hash in.
    """
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        noted, listing = content["tarball"], content["files"]
        if (content["format_version"], noted["compression"]) != (FORMAT_VERSION, recipe()):
            return None
        if path.stat().st_size != noted["size"] or len(listing) != len(members):
            return None
        sizes = [(item["path"], item.get("size")) for item in listing]
    except (FileNotFoundError, ValueError, TypeError, LookupError, AttributeError):
        return None  # missing, or not a manifest of ours
    if sizes != [(member.name, None if member.is_folder else member.size) for member in members]:
        return None
    digests = _hash_members(members, workers)
    if listing != _listing(members, digests) or _hash(list_members(path)[0]) != noted["sha256"]:
        return None
    return Tarball(noted["sha256"], noted["size"], digests)


def _hash_members(members: Sequence[Member], workers: int) -> dict[str, str]:
    """Member -> sha256, of the files."""
    files = [member for member in members if not member.is_folder]
    with ThreadPoolExecutor(workers) as pool:
        return {member.name: digest for member, digest in zip(files, pool.map(_hash, files), strict=True)}


def _hash(member: Member) -> str:
    """sha256 of a file that has kept its size."""
    digest = hashlib.sha256()
    for piece in read_exactly(member):
        digest.update(piece)
    return digest.hexdigest()


def _listing(members: Sequence[Member], digests: Mapping[str, str]) -> list[dict[str, object]]:
    """Files with size and sha256, folders by name."""
    return [
        {"path": member.name}
        if member.is_folder
        else {"path": member.name, "size": member.size, "sha256": digests[member.name]}
        for member in members
    ]
