"""Work in a folder that goes on after a kill: what was asked for, how far it came, whether it is done."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solvers.common.files import WriterLock, written_aside

RECORD = "stage.json"
_HALF_RECORD = f".{RECORD}.part"  # of a process that was killed while it wrote its first one


@dataclass
class Stage:
    """A folder with a record of what is made in it: the same request continues, another is refused.

    Where the folder is to appear complete or not at all, let it be the hidden `hidden_part(target)` and
    rename it when it is done (`replace_folder`).

    Attributes:
        folder: Where the work is done; its record is `stage.json` in it.
        request: All that decides the result, as JSON values by the names a user knows them by.
        progress: What the record says of how far the work came, JSON values; {} at the start.
    """

    folder: Path
    request: Mapping[str, Any]
    progress: dict[str, Any] = field(default_factory=dict)
    _lock: WriterLock | None = field(default=None, repr=False)

    @property
    def is_done(self) -> bool:
        """Whether this very request came to its end here."""
        record = read_record(self.folder)
        return record is not None and record["done"] and not self.changes()

    def changes(self) -> list[str]:
        """Describe what the folder's request has other than this one: "seed: 0 there, 1 now"."""
        record = read_record(self.folder)
        if record is None:
            return []
        return differences(record["request"], self.request)

    def begin(self, *, overwrite: bool = False, timeout: float = 0.0) -> None:
        """Take the folder for this process, and read how far an earlier one came; `close` lets go of it.

        Args:
            overwrite: Remove what another request left.
            timeout: Seconds to wait for another process that works on it.

        Raises:
            ValueError: Another request is done or begun in the folder, or something that no record tells of.
            BlockingIOError: Another process works on it.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(self.folder, timeout=timeout)
        try:
            try:
                changes = self.changes()
            except ValueError as damage:
                if not overwrite:
                    raise
                changes = [str(damage)]
            if changes:
                if not overwrite:
                    raise ValueError(
                        f"{self.folder} is of another request ({'; '.join(changes)}); repeat that one, give "
                        "--overwrite to start anew, or choose another folder"
                    )
                shutil.rmtree(self.folder)
            record = read_record(self.folder)
            if record is None and self.folder.exists() and set(os.listdir(self.folder)) - {_HALF_RECORD}:
                raise ValueError(f"{self.folder} is in the way: it has no {RECORD}; move it away")
            self.folder.mkdir(exist_ok=True)
            self.progress = {} if record is None else record["progress"]
            self.record()
        except BaseException:
            self.close()
            raise

    def record(self, **progress: Any) -> None:
        """Note how far the work came, whole or not at all; values given before are kept."""
        self.progress.update(progress)
        self._write(done=False)

    def finish(self) -> None:
        """Note that the work is done, and let go of the folder."""
        self._write(done=True)
        self.close()

    def close(self) -> None:
        """Let other processes at the folder; what is unfinished stays for the next time."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, *, done: bool) -> None:
        with written_aside(self.folder / RECORD) as file:
            values = {"request": self.request, "progress": self.progress, "done": done}
            file.write(json.dumps(values, indent=1).encode())


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of a folder; None where there is none.

    Raises:
        ValueError: If it is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.keys() >= {"request", "progress", "done"}:
            return dict(record)
    except (ValueError, AttributeError):
        pass
    raise ValueError(f"{path} is damaged; remove {folder} to start anew")


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe what differs between two requests of JSON values, as "data.seed: 0 there, 1 now"."""
    before, after = (_flat(json.loads(json.dumps(values))) for values in (there, now))
    return [
        f"{name}: {_short(before, name)} there, {_short(after, name)} now"
        for name in [*before, *(name for name in after if name not in before)]
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
    ]


_ABSENT = object()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name the values of nested mappings with dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _short(values: Mapping[str, Any], name: str) -> str:
    """Give a value in at most 60 characters."""
    text = str(values.get(name, "absent"))
    return text if len(text) <= 60 else f"{text[:57]}..."
