"""What an unfinished cache is going to be, so that the same plan, and no other, continues it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from gust_torch.latents.index import INDEX, CacheIndex, write_durably
from gust_torch.latents.key import LatentKey

JOURNAL = "journal.json"


@dataclasses.dataclass(frozen=True)
class Journal:
    """State of an unfinished cache, beside the shards that are there.

    Attributes:
        key: Of the latents.
        batch_size: Samples that are encoded together.
        devices: Those that worked on it.
    """

    key: LatentKey
    batch_size: int
    devices: tuple[str, ...]


def write_journal(folder: Path, journal: Journal) -> None:
    """Replace the journal; it is never half-written."""
    temporary = folder / f"{JOURNAL}.new"
    write_durably(temporary, json.dumps(dataclasses.asdict(journal)).encode())
    os.replace(temporary, folder / JOURNAL)


def read_journal(folder: Path) -> Journal | None:
    """Return the journal of an unfinished cache; None where there is none.

    A cache that was killed between its last file and its rename has an index in place of the journal.

    Raises:
        ValueError: It is damaged or of another version.
    """
    path = folder / JOURNAL
    try:
        if path.is_file():
            values = json.loads(path.read_text(encoding="utf-8"))
            key = LatentKey.from_dict(values["key"])
            return Journal(key, int(values["batch_size"]), tuple(values["devices"]))
        path = folder / INDEX
        if path.is_file():
            index = CacheIndex.from_json(path.read_text(encoding="utf-8"))
            return Journal(index.key, index.batch_size, (index.device,))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or of another version ({error})") from error
    return None
