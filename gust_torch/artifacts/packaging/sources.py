"""Which files below a root make up a data set."""

import re
from collections.abc import Sequence
from pathlib import Path

from gust_torch.artifacts.registry.checks import SPLITS

SUFFIXES = (".h5", ".zarr")
_FILE = re.compile(rf"(?P<task>.+)_({'|'.join(SPLITS)})({'|'.join(map(re.escape, SUFFIXES))})")


def find_task(name: str, root: Path) -> str:
    """Return the task that a package's name begins with: the longest of those that have files in `root`.

    Args:
        name: `burgers1d_subset_v1`.
        root: Folder of `burgers1d_train.h5` and others.

    Raises:
        ValueError: There is none.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; convert the task first, or change --root")
    tasks = sorted({match["task"] for path in root.iterdir() if (match := _FILE.fullmatch(path.name))})
    fitting = [task for task in tasks if re.fullmatch(rf"{re.escape(task)}([_.-].*)?", name)]
    if not fitting:
        found = f"it has {', '.join(tasks)}" if tasks else "it has files of no task"
        raise ValueError(
            f"{root} has no files of a task that {name!r} begins with; {found}: give --task, change --root, "
            "or convert the task first (scripts/convert_pdebench_multimodal.py)"
        )
    return max(fitting, key=len)


def find_splits(task: str, root: Path, wanted: Sequence[str] | None) -> dict[str, Path]:
    """Split -> file or store of a task, in the order train, val, test.

    Args:
        task: Such as burgers1d.
        root: Where the files are.
        wanted: Splits that must be there; None takes those that are.

    Raises:
        ValueError: A wanted one is missing, none is there, or one is there twice.
    """
    found: dict[str, Path] = {}
    for split in SPLITS:
        paths = [path for suffix in SUFFIXES if (path := root / f"{task}_{split}{suffix}").exists()]
        if len(paths) > 1 and (wanted is None or split in wanted):
            raise ValueError(f"{paths[0]} and {paths[1]} are both there; move away the one not to be packed")
        if paths:
            found[split] = paths[0]
    missing = [split for split in wanted or () if split not in found]
    if missing or not found:
        pattern = f"{root}/{task}_{{{','.join(missing or SPLITS)}}}.h5 (or .zarr)"
        raise ValueError(
            f"no {pattern}; convert the task first (scripts/convert_pdebench_multimodal.py), or change "
            "--root, --task or --splits"
        )
    return {split: path for split, path in found.items() if wanted is None or split in wanted}
