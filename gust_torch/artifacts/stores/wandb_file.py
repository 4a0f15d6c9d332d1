"""Reads a file of a W&B artifact."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gust_torch.artifacts.stores.wandb_client import API_TIMEOUT, wandb_session
from gust_torch.artifacts.stores.wandb_login import check_login

_THREADS = 8  # wandb fetches the parts of a large file in parallel


class WandbFile:
    """A `RemoteFile` in a W&B artifact; read as a whole, wandb offers no ranges.

    Attributes:
        name: Name of the file in the artifact, without folders.
        size: Bytes.
        supports_ranges: False.
    """

    supports_ranges = False

    def __init__(self, reference: str, *, cache_dir: Path, file: str | None = None) -> None:
        """Looks the artifact up.

        Args:
            reference: "entity/project/name:version".
            cache_dir: Folder below which wandb may keep its files.
            file: Name of the file wanted; an artifact with a single file needs none.

        Raises:
            ValueError: No login, no such artifact or file, no access, or W&B cannot be reached.
        """
        check_login()
        self._reference, self._cache_dir = reference, cache_dir
        with wandb_session(cache_dir, reference) as wandb:
            artifact = wandb.Api(timeout=API_TIMEOUT).artifact(reference)
            entries: dict[str, Any] = dict(artifact.manifest.entries)
        path = _choose(entries, file, reference)
        self._entry = entries[path]
        self.name: str = path.rpartition("/")[2]
        self.size: int | None = self._entry.size

    def read_range(self, start: int, stop: int) -> bytes:
        """Is not possible.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{self._reference}: W&B files are read as a whole; use download()")

    def download(self, path: Path) -> None:
        """Writes the whole file to `path`.

        Raises:
            ValueError: W&B cannot be reached, or the disk is full.
        """
        folder = path.with_name(f".{path.name}.wandb")
        shutil.rmtree(folder, ignore_errors=True)  # of a download that was killed
        try:
            with wandb_session(self._cache_dir, self._reference), ThreadPoolExecutor(_THREADS) as executor:
                folder.mkdir(parents=True)
                os.replace(self._entry.download(root=str(folder), skip_cache=True, executor=executor), path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _choose(entries: dict[str, Any], file: str | None, reference: str) -> str:
    """Path in the artifact of the file that is meant.

    Raises:
        ValueError: None is, or several could be.
    """
    named = [path for path in entries if file is not None and path.rpartition("/")[2] == file]
    if len(named) == 1:
        return named[0]
    if len(entries) == 1:
        return next(iter(entries))
    wanted = f"none named {file}" if file is not None else "not one"
    listed = ", ".join(sorted(entries)[:5]) or "none"
    raise ValueError(
        f"{reference} has {len(entries)} files, {wanted} ({listed}); upload one tarball an artifact"
    )
