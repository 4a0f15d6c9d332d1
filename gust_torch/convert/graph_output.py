"""Targets of a conversion of graphs: written in a hidden folder beside them, renamed when complete."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


class StoreFolder:
    """The hidden folder in which stores are written; targets appear complete or not at all."""

    def __init__(self, targets: Mapping[str, Path], stem: str, *, overwrite: bool) -> None:
        """Check the targets; nothing is touched.

        Args:
            targets: Split name -> store, all in one folder.
            stem: Name of the conversion.
            overwrite: Whether existing stores may be replaced.

        Raises:
            ValueError: A target exists and may not be replaced.
        """
        self._targets = targets
        self.folder = next(iter(targets.values())).parent / f".{stem}.parts"
        existing = [path for path in targets.values() if path.exists()]
        if existing and not overwrite:
            names = ", ".join(map(str, existing))
            raise ValueError(f"{names} exists already; give --overwrite to replace it, or another --out")
        if foreign := [path for path in existing if not (path / "zarr.json").is_file()]:
            raise ValueError(f"{foreign[0]} is not a Zarr store and stays; choose another --out")
        self._missing = tuple(parent for parent in self.folder.parents if not parent.exists())

    def path(self, split: str) -> Path:
        """Where the store of a split is written."""
        return self.folder / self._targets[split].name

    def begin(self) -> None:
        """Make the folder, without what a killed conversion left in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def publish(self) -> None:
        """Rename the stores to their targets; older ones go, those of splits without samples too."""
        for split, target in self._targets.items():
            if target.exists():
                os.replace(target, self.folder / f"replaced_{target.name}")
            if self.path(split).exists():
                os.replace(self.path(split), target)
        shutil.rmtree(self.folder)

    def discard(self) -> None:
        """Remove the folder and those above it that it needed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for parent in self._missing:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
