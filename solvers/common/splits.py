"""Which files make up a converted data set: `<root>/<task>_<split>.h5`, or `.zarr` for graphs."""

import re
from pathlib import Path

SPLITS = ("train", "val", "test")
GRID, GRAPHS = ".h5", ".zarr"

_NAME = re.compile(rf"(?P<task>.+)_({'|'.join(SPLITS)})(\{GRID}|\{GRAPHS})")


def split_path(root: str | Path, task: str, split: str, suffix: str = GRID) -> Path:
    """Name the file of a split, whether it is there or not."""
    return Path(root) / f"{task}_{split}{suffix}"


def find_split(root: str | Path, task: str, split: str) -> Path:
    """Find the file or store of one split; a ValueError where there is none, or two."""
    return find_splits(root, task, (split,))[split]


def find_splits(root: str | Path, task: str, wanted: tuple[str, ...] | None = None) -> dict[str, Path]:
    """Find the files or stores of a task ("burgers1d"), in the order train, val, test.

    Args:
        root: Folder of `burgers1d_train.h5` and others.
        task: Such as "burgers1d".
        wanted: Splits that must be there, and no other; None takes those that are, {} where there are none.

    Raises:
        ValueError: A wanted one is missing, or one is there twice.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    for split in SPLITS if wanted is None else wanted:
        grid, graphs = (split_path(root, task, split, suffix) for suffix in (GRID, GRAPHS))
        if grid.exists() and graphs.exists():
            raise ValueError(f"there are both {grid} and {graphs}; move one of them away")
        if grid.exists() or graphs.exists():
            found[split] = grid if grid.exists() else graphs
        else:
            missing.append(grid.name if missing else str(grid))
    if wanted and missing:
        remedy = "convert the task first (scripts/convert_pdebench_multimodal.py), or change --root"
        raise ValueError(f"no {', '.join(missing)} (or {GRAPHS}); {remedy}")
    return found


def find_tasks(root: str | Path) -> list[str]:
    """List the tasks that have files in a folder."""
    names = (path.name for path in Path(root).iterdir())
    return sorted({match["task"] for name in names if (match := _NAME.fullmatch(name))})
