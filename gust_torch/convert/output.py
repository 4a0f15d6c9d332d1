"""What all conversions share: their options, the search for sources, and the folder they are made in."""

import glob
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from solvers.common.files import hidden_part, replace_folder
from solvers.common.progress import Interrupt
from solvers.common.stage import Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of every conversion."""

    limit: int | None = None
    """Source files to take, the first by name; all by default."""
    samples: int | None = None
    """Trajectories to take from each file; all by default."""
    splits: tuple[float, float, float] | None = (0.8, 0.1, 0.1)
    """Shares of train, val and test."""
    split_by: Literal["group", "trajectory"] = "group"
    """What a split keeps together: trajectories that start from one state, as sweeps do; or none."""
    seed: int = 0
    """Seed of the split."""
    compression: Literal["lz4", "gzip"] | None = None
    """Smaller and slower to read; none by default."""
    verify: bool = False
    """Compare the outputs with the sources, bit for bit, before they get their names."""
    overwrite: bool = False
    """Replace existing outputs."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("limit", self.limit, 1),
            ("samples", self.samples, 1),
            ("seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"--{name} is {value}, expected at least {least}")
        if self.splits is not None and not (min(self.splits) >= 0 and abs(sum(self.splits) - 1) <= 1e-6):
            raise ValueError(
                f"--splits are {list(self.splits)}, expected three shares of train, val and test that sum to "
                "1; for example --splits 0.8 0.1 0.1"
            )


@dataclass
class Result:
    """Outputs by split, what is in each as {"trajectories": 8}, and 128 + signal where one stopped it."""

    outputs: Mapping[str, Path] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    exit_code: int = 0


def find_files(root: Path, pattern: str) -> list[str]:
    """Sorted files below a root that match a glob, relative to it; hidden ones only where it says so."""
    if not root.is_dir():
        raise ValueError(
            f"{root}: no such folder; give --root the folder that holds the released 1D/ and 2D/"
        )
    if Path(pattern).is_absolute():
        raise ValueError(f"--pattern is {pattern!r}, expected a glob below --root; leave {root} out")
    names = set(glob.glob(pattern, root_dir=root, recursive=True))
    return sorted(name for name in names if (root / name).is_file())


def carry_out(
    targets: Mapping[str, Path],
    stem: str,
    request: Mapping[str, Any],
    options: Options,
    write: Callable[[Stage, Mapping[str, Path], Interrupt], None],
    verify: Callable[[Mapping[str, Path]], None],
    *,
    resumes: bool = True,
) -> Result:
    """Make the outputs of a conversion in a hidden folder `.STEM.part`, then give them their names.

    A conversion that was interrupted, killed or ran out of disk leaves it, and the next call with the same
    request goes on, if it `resumes`; a refusal (ValueError) removes it, and the folders that it needed.

    Args:
        targets: Split name -> file or store, of all splits, in one folder.
        stem: Name of the conversion.
        request: All that decides what is written.
        options: Whether to verify, and to replace what is there.
        write: Fills the unfinished outputs until it is interrupted, and notes their `counts` in the record.
        verify: Compares the outputs that have counts with their sources.
        resumes: Whether an unfinished conversion is of use; otherwise none is left, nor taken up.
    """
    folder = hidden_part(next(iter(targets.values())).parent / stem)
    created = [parent for parent in folder.parents if not parent.exists()]
    stage = Stage(folder, request)
    stage.begin(overwrite=options.overwrite or not resumes)
    existing = ", ".join(str(path) for path in targets.values() if path.exists())
    refused = bool(existing) and not options.overwrite and "publishing" not in stage.progress
    discard = not resumes
    try:
        if refused:
            raise ValueError(f"{existing} exists already; give --overwrite to replace it, or another --out")
        if not resumes:
            stage.progress.clear()
            for left in (path for path in folder.iterdir() if path.is_dir()):
                shutil.rmtree(left)
        if "publishing" not in stage.progress:
            paths = {split: folder / target.name for split, target in targets.items()}
            with Interrupt() as interrupt:
                write(stage, paths, interrupt)
            if interrupt.signal:
                goes_on = "continues" if resumes else "starts again"
                logger.warning("stopped by %s; the same command %s", interrupt.signal.name, goes_on)
                return Result(exit_code=interrupt.exit_code)
            if options.verify:
                verify({split: paths[split] for split in stage.progress["counts"]})
        counts = stage.progress["counts"]
        _publish(stage, targets, counts)
        return Result({split: targets[split] for split in counts}, counts)
    except ValueError:
        discard = not refused or not stage.progress
        raise
    finally:
        if discard:
            shutil.rmtree(folder, ignore_errors=True)
        stage.close()
        for parent in created if discard else ():
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _publish(stage: Stage, targets: Mapping[str, Path], splits: Iterable[str]) -> None:
    """Rename the outputs of these splits, also after a kill between the renames; what others had goes."""
    stage.record(publishing=list(splits))
    for split, target in targets.items():
        unfinished = stage.folder / target.name
        if unfinished.is_dir():
            replace_folder(unfinished, target)
        elif unfinished.exists():
            os.replace(unfinished, target)
        elif split not in splits and target.is_dir():
            shutil.rmtree(target)
        elif split not in splits:
            target.unlink(missing_ok=True)
    shutil.rmtree(stage.folder)
