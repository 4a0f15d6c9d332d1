"""Where an unfinished conversion lives: a hidden folder beside the targets, with a journal.

Targets appear by a rename when everything is written, so no target is ever half-written. A conversion that
was interrupted, killed or ran out of disk leaves its folder, and the next call with the same request goes on
behind the last finished source; a refusal removes the folder.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from solvers.common.files import written_aside

_JOURNAL = "journal.json"


@dataclass(frozen=True)
class Journal:
    """State of a conversion.

    Attributes:
        request: All that decides what is written.
        finished: Sources that are completely in the unfinished outputs, counted from the first.
        frames: Split name -> frames of these sources.
        publishing: Whether the outputs are complete and are being renamed to their targets.
    """

    request: str
    finished: int
    frames: Mapping[str, int]
    publishing: bool = False


class Workspace:
    """The folder of an unfinished conversion.

    Attributes:
        folder: `.NAME.parts` beside the targets.
    """

    def __init__(self, targets: Mapping[str, Path], unused: Sequence[Path], *, overwrite: bool) -> None:
        """Names the folder; nothing is touched.

        Args:
            targets: Split name -> output file, all in one folder.
            unused: Files of splits without trajectories.
            overwrite: Whether existing targets may be replaced.
        """
        self._targets, self._unused, self._overwrite = targets, unused, overwrite
        self._created: tuple[Path, ...] = ()
        names = sorted(path.name for path in (*targets.values(), *unused))
        first = Path(names[0]).stem
        stem = first if len(names) == 1 else first.rsplit("_", 1)[0]
        parent = next(iter(targets.values())).parent
        self.folder = parent / f".{stem}.parts"

    def path(self, split: str) -> Path:
        """Unfinished output of a split."""
        return self.folder / self._targets[split].name

    def begin(self, request: str) -> Journal:
        """Find or creates the folder and says where to continue.

        Raises:
            ValueError: Without `overwrite`, a target exists or the folder holds another conversion.
        """
        journal = self._read()
        if journal is not None and journal.request == request:
            if not journal.publishing:
                self._refuse_existing()
            return journal
        if journal is not None and not self._overwrite:
            raise ValueError(
                f"{self.folder} holds an unfinished conversion of other files or with other settings; repeat "
                "that command to finish it, or give --overwrite to start again"
            )
        self._refuse_existing()
        self._created = self._missing_parents()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        journal = Journal(request, 0, dict.fromkeys(self._targets, 0))
        self.record(journal)
        return journal

    def record(self, journal: Journal) -> None:
        """Replace the journal; it is never half-written."""
        with written_aside(self.folder / _JOURNAL) as file:
            file.write(json.dumps(asdict(journal)).encode())

    def publish(self, journal: Journal) -> None:
        """Rename the complete outputs to their targets; a second call finishes this after a kill."""
        self.record(Journal(journal.request, journal.finished, journal.frames, publishing=True))
        for split, target in self._targets.items():
            if self.path(split).exists():
                os.replace(self.path(split), target)
        for path in self._unused:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def discard(self) -> None:
        """Remove the folder and those above it that this conversion made: a refusal leaves nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self._created:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _missing_parents(self) -> tuple[Path, ...]:
        """Folders above ours that do not exist yet, the innermost first."""
        return tuple(folder for folder in self.folder.parents if not folder.exists())

    def _refuse_existing(self) -> None:
        """Raise ValueError where a target exists and may not be replaced."""
        existing = [str(path) for path in (*self._targets.values(), *self._unused) if path.exists()]
        if existing and not self._overwrite:
            raise ValueError(
                f"{', '.join(existing)} exists already; give --overwrite to replace it, or another --out"
            )

    def _read(self) -> Journal | None:
        """Return the journal of an earlier call; None where there is none."""
        path = self.folder / _JOURNAL
        if not path.is_file():
            return None
        return Journal(**json.loads(path.read_text(encoding="utf-8")))
