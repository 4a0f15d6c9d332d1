"""Work in a folder that goes on after a kill: what was asked for, how far it came, whether it is done."""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solvers.common.files import WriterLock, written_aside

RECORD = "stage.json"


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
        return [] if record is None else differences(record["request"], self.request)

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
        with ExitStack() as on_error:
            on_error.callback(self.close)
            problem = ""
            try:
                if changes := self.changes():
                    problem = (
                        f"{self.folder} is of another request ({'; '.join(changes)}); repeat that one, give "
                        "--overwrite to start anew, or choose another folder"
                    )
            except ValueError as damage:
                problem = str(damage)
            if problem and not overwrite:
                raise ValueError(problem)
            if problem:
                shutil.rmtree(self.folder)
            self.folder.mkdir(exist_ok=True)
            record = read_record(self.folder)
            # A first record may be half-written.
            if record is None and set(os.listdir(self.folder)) - {f".{RECORD}.part"}:
                raise ValueError(f"{self.folder} is in the way: it has no {RECORD}; move it away")
            self.progress = {} if record is None else record["progress"]
            self.record()
            on_error.pop_all()

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
    """Read the record of a folder; None where there is none, a ValueError where it is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: record[name] for name in ("request", "progress", "done")}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; remove {folder} to start anew") from None


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe what differs between two requests of JSON values, as "data.seed: 0 there, 1 now"."""
    before, after = (_flat(json.loads(json.dumps(values))) for values in (there, now))
    pairs = {name: (before.get(name, "absent"), after.get(name, "absent")) for name in {**before, **after}}
    return [f"{name}: {_short(a)} there, {_short(b)} now" for name, (a, b) in pairs.items() if a != b]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name the values of nested mappings with dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
