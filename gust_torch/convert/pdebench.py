"""The two entry points of the PDEBench converters: a family below a root, or any files by a glob."""

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gust_torch.convert.conversion import Result, convert
from gust_torch.convert.families import Family, detect_family, get_family
from gust_torch.convert.plan import Options, make_plan
from gust_torch.convert.splits import SPLIT_NAMES, WHOLE


@dataclass(frozen=True)
class Execution:
    """How a conversion runs; the files written do not depend on it.

    Attributes:
        overwrite: Replace existing targets.
        verify: Re-read the outputs and compare them with the sources, bit for bit.
        workers: Processes that convert source files in parallel through Dask; 0 converts in this process.
        scheduler: Address of a running Dask scheduler, used instead of local processes.
    """

    overwrite: bool = False
    verify: bool = False
    workers: int = 0
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"--workers is {self.workers}, expected 0 (no Dask) or more")


def convert_family(
    name: str, root: Path, out: Path, options: Options, execution: Execution, pattern: str | None = None
) -> Result:
    """Convert the files of one family to `out/NAME_train.h5`, `NAME_val.h5` and `NAME_test.h5`.

    Args:
        name: Family name, such as "burgers1d".
        root: Folder with the released directories (1D, 2D).
        out: Output folder, made if missing.
        options: What to take and how to split it.
        execution: How to run.
        pattern: Glob below the root that replaces the family's own.

    Raises:
        ValueError: Unknown family, no files, or data that cannot be converted; nothing is left behind.
        OSError: Writing failed; the same call continues.
    """
    family = get_family(name)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give --root the folder that holds 1D/ and 2D/")
    if pattern and Path(pattern).is_absolute():
        raise ValueError(
            f"--pattern is {pattern!r}, expected a glob below --root; leave the folder {root} out"
        )
    patterns = (pattern,) if pattern else family.patterns
    paths = [path for each in patterns for path in sorted(root.glob(each)) if path.is_file()]
    if not paths:
        raise ValueError(
            f"{root}: no files match {' or '.join(patterns)}; "
            "give --root the folder that holds 1D/ and 2D/, or --pattern"
        )
    targets = _targets(out, name)
    return _run(paths, family, options, targets, root, execution)


def convert_pattern(
    pattern: str, out: Path, options: Options, execution: Execution, family: str | None = None
) -> Result:
    """Convert all files that match a glob to the single file `out`, or to OUT_train, _val and _test.

    Args:
        pattern: Glob.
        out: Output file.
        options: What to take and how to split it; `fractions=None` for a single file.
        execution: How to run.
        family: Family name, for files that are not named as released; None finds it by the names.

    Raises:
        ValueError: No files, or data that cannot be converted; nothing is left behind.
        OSError: Writing failed; the same call continues.
    """
    paths = [Path(match) for match in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(match)]
    if not paths:
        raise ValueError(f"no files match --pattern {pattern!r}; quote it, and check that the folder exists")
    found = get_family(family) if family else detect_family(paths)
    targets = {WHOLE: out} if options.fractions is None else _targets(out.parent, out.stem)
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return _run(paths, found, options, targets, root, execution)


def _targets(folder: Path, stem: str) -> dict[str, Path]:
    """Split name -> output file."""
    return {split: folder / f"{stem}_{split}.h5" for split in SPLIT_NAMES}


def _run(
    paths: Sequence[Path],
    family: Family,
    options: Options,
    targets: Mapping[str, Path],
    root: Path,
    execution: Execution,
) -> Result:
    """Check everything, then converts."""
    sources = {path.resolve() for path in paths}
    for target in targets.values():
        if target.is_dir() or target.resolve() in sources:
            kind = "a folder" if target.is_dir() else "one of the sources"
            raise ValueError(f"{target} is {kind}, expected a file to write; choose another --out")
    return convert(
        make_plan(paths, family, options, targets, root),
        overwrite=execution.overwrite,
        verify_outputs=execution.verify,
        workers=execution.workers,
        scheduler=execution.scheduler,
    )
