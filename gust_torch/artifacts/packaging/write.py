"""Writes a tarball and its manifest: aside, renamed when complete, and never over something else."""

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gust_torch.artifacts.packaging.gzip_blocks import BLOCK_BYTES, gzip_stream
from gust_torch.artifacts.packaging.manifest import Tarball, existing_tarball, make_manifest, write_manifest
from gust_torch.artifacts.packaging.tar_stream import Member, check_unchanged, tar_stream
from solvers.common.files import WriterLock, written_aside
from solvers.common.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """What goes into a package.

    Attributes:
        description: Goes into the manifest: name, task, kind, splits, metadata, sources.
        members: Files and folders of the tarball.
        roots: The files and stores that they were listed from.
    """

    description: Mapping[str, object]
    members: Sequence[Member]
    roots: Sequence[Path]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.members)


def write_package(
    target: Path, manifest: Path, contents: Contents, *, workers: int, overwrite: bool
) -> tuple[Tarball, bool]:
    """Write a tarball and its manifest, or finds that they are there already.

    The manifest gets its name first: a run that is killed between the two leaves a manifest that fits no
    tarball, which the next run replaces.

    Args:
        target: The tarball.
        manifest: The manifest.
        contents: What goes in.
        workers: Threads.
        overwrite: Whether another tarball may be replaced.

    Returns:
        The tarball, and whether it was written.

    Raises:
        ValueError: Another tarball and no `overwrite`; a file changed meanwhile.
        BlockingIOError: Another process is writing them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(target)
    try:
        if target.exists():
            found = existing_tarball(target, manifest, contents.members, workers)
            if found is not None:
                check_unchanged(contents.members, contents.roots)
                logger.info("%s has these files already; nothing to do", target)
                return found, False
            if not overwrite:
                raise ValueError(
                    f"{target} exists and has other contents, or its manifest does not fit it; give "
                    "--overwrite to replace it, or the package another name"
                )
        return _write(target, manifest, contents, workers), True
    finally:
        lock.release()


def _write(target: Path, manifest: Path, contents: Contents, workers: int) -> Tarball:
    """Write both files."""
    start = time.monotonic()
    with written_aside(target) as file:
        tarball = _compress(file, contents, workers)
        check_unchanged(contents.members, contents.roots)
        write_manifest(manifest, make_manifest(contents.description, tarball, target.name, contents.members))
    seconds = time.monotonic() - start
    logger.info(
        "%s: %.1f MB of files, packed to %.1f MB (%.1f %%) in %.1f s (%.0f MB/s)",
        target,
        contents.num_bytes / 1e6,
        tarball.size / 1e6,
        100 * tarball.size / max(contents.num_bytes, 1),
        seconds,
        contents.num_bytes / 1e6 / max(seconds, 1e-9),
    )
    return tarball


def _compress(file: BinaryIO, contents: Contents, workers: int) -> Tarball:
    """Write the compressed tarball to an open file and hashes it on the way."""
    digests: dict[str, str] = {}
    sha256, size = hashlib.sha256(), 0
    num_blocks = -(-contents.num_bytes // BLOCK_BYTES)
    with Progress(num_blocks, unit="block", description=str(contents.description["name"])) as progress:
        pieces = _counted(tar_stream(contents.members, digests), progress, num_blocks)
        for piece in gzip_stream(pieces, workers):
            file.write(piece)
            sha256.update(piece)
            size += len(piece)
    return Tarball(sha256.hexdigest(), size, digests)


def _counted(pieces: Iterator[bytes], progress: Progress, total: int) -> Iterator[bytes]:
    """Yield the same pieces, counted in blocks."""
    done = shown = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        if (blocks := min(done // BLOCK_BYTES, total)) > shown:
            progress.update(blocks - shown)
            shown = blocks
    progress.update(total - shown)
