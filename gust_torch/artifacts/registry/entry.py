"""One data set of the registry."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from gust_torch.artifacts.registry.checks import ENTRY_KEYS, NAME, OPTIONAL_KEYS, entry_problems


@dataclass(frozen=True)
class DatasetEntry:
    """A packaged data set and where it lies.

    Attributes:
        name: Key in the registry.
        artifact: W&B reference `[entity/project/]name:version`, or a URL (`file:///...`, `s3://...`).
        kind: One of KINDS.
        splits: Split name -> member of the tarball, a file or the folder of a Zarr store.
        sha256: Hex digest of the tarball.
        size: Bytes of the tarball.
        unpacked: Bytes of the files in it.
        metadata: JSON-like values that describe the data; `scripts/package_dataset.py` fills in samples,
            resolution, fields and parameters.
    """

    name: str
    artifact: str
    kind: str
    splits: Mapping[str, str]
    sha256: str
    size: int
    unpacked: int
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check everything.

        Raises:
            ValueError: With the first thing that is wrong.
        """
        values = {name: getattr(self, name) for name in ENTRY_KEYS}
        values["splits"] = dict(self.splits) if isinstance(self.splits, Mapping) else self.splits
        values["metadata"] = dict(self.metadata) if isinstance(self.metadata, Mapping) else self.metadata
        for _, text in entry_problems(self.name, values):
            raise ValueError(text)

    @property
    def task(self) -> str:
        """What the members are named for, `burgers1d` of `burgers1d_train.h5`; it goes into flags and paths.

        Raises:
            ValueError: They are named otherwise, or with other characters than a data set may be.
        """
        split, member = next(iter(self.splits.items()))
        task, separator, _ = member.rpartition(f"_{split}.")
        if not separator or not NAME.fullmatch(task):
            raise ValueError(
                f"{self.name}: the {split} member is {member}, expected TASK_{split}.h5 or .zarr; rename it"
            )
        return task

    def to_yaml(self) -> str:
        """Return the entry as it stands in the registry, with its name, ending in a newline."""
        return entry_yaml(self.name, {key: getattr(self, key) for key in ENTRY_KEYS})


def entry_yaml(name: str, values: Mapping[str, object]) -> str:
    """Text of an entry, which need not be valid yet (its artifact may be a placeholder).

    Each key has one line, except where text has several.
    """
    lines = [
        "  " + _dump(key, dict(item) if isinstance(item, Mapping) else item)
        for key, item in values.items()
        if item or key not in OPTIONAL_KEYS
    ]
    return f"{name}:\n{''.join(lines)}"


def _dump(key: str, value: object) -> str:
    """One key with its value, a mapping in braces, ending in a newline."""
    braces = isinstance(value, dict)
    text: str = yaml.safe_dump(
        {key: value}, sort_keys=False, default_flow_style=braces, allow_unicode=True, width=math.inf
    )
    return (text.strip()[1:-1] if braces else text.rstrip()) + "\n"
