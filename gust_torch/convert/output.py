"""Where a conversion is written: a hidden folder beside the targets, which appear complete or not at all."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solvers.common.files import hidden_part, replace_folder
from solvers.common.stage import Stage


@dataclass
class Result:
    """Outcome of a conversion.

    Attributes:
        outputs: Split name -> file or store.
        counts: Split name -> what is in it, as {"trajectories": 8, "frames": 40}.
        exit_code: 0, or 128 + signal where a signal stopped it; the same command goes on then.
    """

    outputs: Mapping[str, Path] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    exit_code: int = 0


class Workspace:
    """The hidden folder `.STEM.part` of a conversion, with the record of a `Stage`; a context manager.

    A conversion that was interrupted, killed or ran out of disk leaves it, and the next call with the same
    request goes on; a refusal (ValueError) removes it, with the folders above that it needed.
    """

    def __init__(
        self,
        targets: Mapping[str, Path],
        stem: str,
        request: Mapping[str, Any],
        *,
        overwrite: bool,
        resumes: bool = True,
    ) -> None:
        """Name the folder; nothing is touched.

        Args:
            targets: Split name -> file or store, of all splits, in one folder.
            stem: Name of the conversion.
            request: All that decides what is written.
            overwrite: Whether existing targets, and an unfinished conversion of something else, may go.
            resumes: Whether an unfinished conversion is of use; otherwise none is left, nor taken up.
        """
        self._targets, self._overwrite, self._resumes = targets, overwrite, resumes
        folder = hidden_part(next(iter(targets.values())).parent / stem)
        self._stage = Stage(folder, request)
        self._created = [parent for parent in folder.parents if not parent.exists()]

    @property
    def folder(self) -> Path:
        """Where unfinished outputs are."""
        return self._stage.folder

    @property
    def progress(self) -> Mapping[str, Any]:
        """What was recorded, by this call or an earlier one."""
        return self._stage.progress

    def path(self, split: str) -> Path:
        """Unfinished output of a split."""
        return self.folder / self._targets[split].name

    def __enter__(self) -> "Workspace":
        """Take the folder.

        Raises:
            ValueError: A target exists, or the folder holds another conversion, and neither may go.
            BlockingIOError: Another process is at work in it.
        """
        existing = [str(path) for path in self._targets.values() if path.exists()]
        self._stage.begin(overwrite=self._overwrite or not self._resumes)
        if existing and not self._overwrite and "publishing" not in self.progress:
            self._end(discard=not self.progress)
            raise ValueError(
                f"{', '.join(existing)} exists already; give --overwrite to replace it, or another --out"
            )
        if not self._resumes:
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(discard=not self._resumes or (kind is not None and issubclass(kind, ValueError)))

    def record(self, **progress: Any) -> None:
        """Note how far the conversion came."""
        self._stage.record(**progress)

    def publish(self, splits: Sequence[str]) -> None:
        """Rename the outputs of these splits to their targets; what other splits had goes.

        After a kill between the renames a second call ends this.
        """
        self.record(publishing=list(splits))
        for split, target in self._targets.items():
            unfinished = self.path(split)
            if unfinished.is_dir():
                replace_folder(unfinished, target)
            elif unfinished.exists():
                os.replace(unfinished, target)
            elif split not in splits and target.is_dir():
                shutil.rmtree(target)
            elif split not in splits:
                target.unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def _end(self, *, discard: bool) -> None:
        if discard:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._stage.close()
        for parent in self._created if discard else ():
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
