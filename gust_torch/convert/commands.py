"""The two conversion commands: a family or task below a root, or any grid files by a glob."""

import glob
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from gust_torch.convert.conversion import convert
from gust_torch.convert.families import FAMILIES, detect_family, get_family, refuse_3d
from gust_torch.convert.graphs import GRAPH_TASKS, convert_graphs
from gust_torch.convert.output import Options, Result, find_files
from solvers.common.cli import parse, run_command
from solvers.common.splits import GRID, find_splits

logger = logging.getLogger(__name__)

_TASKS = ", ".join([*FAMILIES, *GRAPH_TASKS])


@dataclass(frozen=True, kw_only=True)
class Task(Options):
    """A family of grids, meshes or particles to train, val and test files."""

    task: tyro.conf.Positional[str]
    """Family or task."""
    root: Path
    """Folder that holds the released 1D/ and 2D/."""
    out: Path
    """Folder for TASK_train.h5 (or .zarr), TASK_val, TASK_test."""
    pattern: str | None = None
    """Glob below --root that replaces the task's own, quoted."""
    skip_bad: bool = False
    """Meshes and particles: go on without bad .npz shards and list them at the end."""


@dataclass(frozen=True, kw_only=True)
class Files(Options):
    """Grids of one family to a single file, or with --splits to _train, _val and _test."""

    pattern: str
    """Glob of the source files, quoted."""
    out: Path
    """Output file."""
    family: str | None = None
    """For files that are not named as released."""
    splits: tuple[float, float, float] | None = None
    """Shares of train, val and test; one file by default."""


def main(argv: list[str] | None = None) -> int:
    """Convert a family or task: `convert_pdebench_multimodal.py`, `gust-torch convert`."""
    description = "Convert PDEBench files, meshes or particles to train, val and test files."
    prog = "python scripts/convert_pdebench_multimodal.py"
    return _run(
        lambda: _convert_task(parse(Task, argv, prog=prog, description=f"{description} Tasks: {_TASKS}."))
    )


def main_files(argv: list[str] | None = None) -> int:
    """Convert grids of one family, found by a glob: `convert_pdebench.py`."""
    description = f"Convert PDEBench grids of one family to a single file. Families: {', '.join(FAMILIES)}."
    prog = "python scripts/convert_pdebench.py"
    return _run(lambda: _convert_files(parse(Files, argv, prog=prog, description=description)))


def _run(command: Callable[[], Result]) -> int:
    """Run a conversion and report: outputs on stdout, a refusal as one line on stderr."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)  # other packages: warnings only
    logging.getLogger("gust_torch").setLevel(logging.INFO)

    def reported() -> int:
        result = command()
        for split, path in result.outputs.items():
            print(f"{path}  {', '.join(f'{count} {what}' for what, count in result.counts[split].items())}")
        return result.exit_code

    return run_command(reported)


def _convert_files(files: Files) -> Result:
    return convert_pattern(files.pattern, files.out, files, family=files.family)


def _convert_task(task: Task) -> Result:
    """Grids become HDF5 files, meshes and particles Zarr stores."""
    if task.task in GRAPH_TASKS:
        return convert_graphs(task.task, task.root, task.out, task, task.pattern, skip_bad=task.skip_bad)
    refuse_3d(task.task)
    if task.task not in FAMILIES:
        raise ValueError(f"unknown task {task.task!r}: use one of {_TASKS}")
    if task.skip_bad:
        raise ValueError(f"--skip-bad is for meshes and particles; leave it out for {task.task}")
    return convert_family(task.task, task.root, task.out, task, task.pattern)


def convert_family(name: str, root: Path, out: Path, options: Options, pattern: str | None = None) -> Result:
    """Convert the files of one family to `out/NAME_train.h5`, `NAME_val.h5` and `NAME_test.h5`.

    Where the root has no released files but `NAME_train.h5` and others of the universal simulator, these are
    converted, and stay in their splits.

    Args:
        name: Family name, such as "burgers1d".
        root: Folder with the released directories (1D, 2D).
        out: Output folder, made if missing.
        options: What to take and how to split it.
        pattern: Glob below the root that replaces the family's own.

    Raises:
        ValueError: Unknown family, no files, or data that cannot be converted; nothing is left behind.
        OSError: Writing failed; the same call continues.
    """
    family = get_family(name)
    paths = [root / found for found in find_files(root, pattern or family.pattern)]
    own = {path: split for split, path in find_splits(root, name).items() if path.suffix == GRID}
    if paths or pattern:
        own = {}
    if own:
        logger.info("the splits of %s are kept", ", ".join(path.name for path in own))
    elif not paths:
        searched = pattern or family.pattern
        raise ValueError(
            f"{root}: no files match {searched}; check --root, which holds 1D/ and 2D/, or --pattern"
        )
    return convert([*paths, *own], family, options, out / f"{name}{GRID}", root, own)


def convert_pattern(pattern: str, out: Path, options: Options, family: str | None = None) -> Result:
    """Convert all files that match a glob, of the named family, or of that which their names tell.

    `options.splits` None gives a single file. Errors are those of `convert_family`.
    """
    paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(path)]
    if not paths:
        raise ValueError(f"no files match --pattern {pattern!r}; quote it, and check that the folder exists")
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return convert(paths, get_family(family) if family else detect_family(paths), options, out, root)
