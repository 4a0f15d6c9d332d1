"""Which files make up a converted data set: `<root>/<task>_<split>.h5`, or `.zarr` for graphs."""

import re
from pathlib import Path

SPLITS = ("train", "val", "test")
GRID, GRAPHS = ".h5", ".zarr"
SUFFIXES = (GRID, GRAPHS)

_CONVERT = "convert the task first (scripts/convert_pdebench_multimodal.py)"
_NAME = re.compile(rf"(?P<task>.+)_({'|'.join(SPLITS)})({'|'.join(map(re.escape, SUFFIXES))})")


def split_path(root: str | Path, task: str, split: str, suffix: str = GRID) -> Path:
    """Name the file of a split, whether it is there or not."""
    return Path(root) / f"{task}_{split}{suffix}"


def find_split(root: str | Path, task: str, split: str) -> Path:
    """Find the file or store of one split.

    Raises:
        ValueError: There is none, or there are two.
    """
    return find_splits(root, task, (split,))[split]


def find_splits(root: str | Path, task: str, wanted: tuple[str, ...] | None = None) -> dict[str, Path]:
    """Find the files or stores of a task, in the order train, val, test.

    Args:
        root: Folder of `burgers1d_train.h5` and others.
        task: Such as "burgers1d".
        wanted: Splits that must be there, and no other; None takes those that are, {} where there are none.

    Raises:
        ValueError: A wanted one is missing, or one is there twice.
    """
    found: dict[str, Path] = {}
    for split in SPLITS if wanted is None else wanted:
        paths = [path for suffix in SUFFIXES if (path := split_path(root, task, split, suffix)).exists()]
        if len(paths) > 1:
            raise ValueError(f"there are both {paths[0]} and {paths[1]}; move one of them away")
        if paths:
            found[split] = paths[0]
    if missing := [split for split in wanted or () if split not in found]:
        first, *others = [split_path(root, task, split) for split in missing]
        names = ", ".join([str(first), *(path.name for path in others)])
        raise ValueError(f"no {names} (or {GRAPHS}); {_CONVERT}, or change --root")
    return found


def find_tasks(root: str | Path) -> list[str]:
    """List the tasks that have files in a folder."""
    names = (path.name for path in Path(root).iterdir())
    return sorted({match["task"] for name in names if (match := _NAME.fullmatch(name))})
