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

    def __init__(self, reference: str, *, cache_dir: Path) -> None:
        """Look the artifact up.

        Args:
            reference: "entity/project/name:version".
            cache_dir: Folder below which wandb may keep its files.

        Raises:
            ValueError: No login, no such artifact, not one file in it, no access, or W&B cannot be reached.
        """
        check_login()
        self._reference, self._cache_dir = reference, cache_dir
        with wandb_session(cache_dir, reference) as wandb:
            artifact = wandb.Api(timeout=API_TIMEOUT).artifact(reference)
            entries: dict[str, Any] = dict(artifact.manifest.entries)
        if len(entries) != 1:
            listed = ", ".join(sorted(entries)[:5]) or "none"
            raise ValueError(
                f"{reference} has {len(entries)} files ({listed}); upload one tarball an artifact"
            )
        ((path, self._entry),) = entries.items()
        self.name: str = path.rpartition("/")[2]
        self.size: int | None = self._entry.size

    def read_range(self, start: int, stop: int) -> bytes:
        """Is not possible.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{self._reference}: W&B files are read as a whole; use download()")

    def download(self, path: Path) -> None:
        """Write the whole file to `path`.

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
