"""Make the flows on which tokenizers are compared, the same for everybody, split by trajectory.

OUTPUT_DIR/SET/train, val, test/seedN/output.h5: the training data are 'OUTPUT_DIR/SET/train/*/output.h5'.
Complete runs are kept, interrupted ones go on.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from solvers.common.cli import parse, run_command
from solvers.common.hdf5_utils import read_hdf5_info

TURBULENCE = ("solvers.py2d_turbulence.run_solver", "--dt", "5e-4", "--dtype", "float32", "--workers", "1")
SPIN_UP = ("--tTotal", "25", "--tSave", "25")  # time units, until the random start is forgotten
FRAMES = ("--tTotal", "75", "--tSave", "0.25")
CONVECTION = ("solvers.rayleigh_benard.run_solver", "--resolution", "256x64", "--grid", "uniform")
SetName = Literal["turbulence_128", "turbulence_256", "convection"]
SEEDS: dict[SetName, dict[str, tuple[int, ...]]] = {
    "turbulence_256": {"train": (11, 12), "val": (15,), "test": (16,)},
    "convection": {"train": (11, 12), "val": (15,), "test": (16,)},
    "turbulence_128": {"train": (11, 12, 13, 14), "val": (15,), "test": (16,)},
}


@dataclass(frozen=True)
class StudyData:
    """Which flows to make, and where.

    Attributes:
        output_dir: folder of the sets
        sets: 256 x 256 and 128 x 128 turbulence (Re 1000, frames from the developed flow), and convection
            (Rayleigh number 1e6) from its start; all take half an hour on two cores
        workers: runs at the same time, on a core each
    """

    output_dir: Path
    sets: tuple[SetName, ...] = tuple(SEEDS)
    workers: int = 2

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.workers < 1:
            raise ValueError(f"expected --workers >= 1, got {self.workers}")


def make_study_data(options: StudyData) -> None:
    """Make what is not complete yet, the longest runs first.

    Raises:
        ValueError: Some runs failed, and are named.
    """
    processes: list[subprocess.Popen[bytes]] = []
    stopping = threading.Event()
    jobs = [
        (name, options.output_dir / name / part / f"seed{seed}", seed)
        for name in SEEDS
        if name in options.sets
        for part, seeds in SEEDS[name].items()
        for seed in seeds
    ]

    def begun(process: subprocess.Popen[bytes]) -> None:
        processes.append(process)
        if stopping.is_set():
            process.terminate()

    def run(job: tuple[SetName, Path, int]) -> Path | None:
        name, folder, seed = job
        done = all(
            not stopping.is_set() and simulate(*command, begun) for command in commands(name, folder, seed)
        )
        if stopping.is_set():
            return None
        print(f"{folder / 'output.h5'}{'' if done else ': failed, see run.log there'}", flush=True)
        return None if done else folder

    pool = ThreadPoolExecutor(options.workers)
    try:
        failed = [str(folder) for folder in pool.map(run, jobs) if folder]
    finally:  # a signal has reached this process only: each run saves what it has
        stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        pool.shutdown()
    if failed:
        raise ValueError(f"failed: {', '.join(failed)}; the same command continues them")


def commands(name: SetName, folder: Path, seed: int) -> list[tuple[Path, tuple[str, ...]]]:
    """List the runs, each (folder, solver and flags), that make one trajectory."""
    if name == "convection":
        return [(folder, (*CONVECTION, "--stop_sim_time", "60", "--seed", str(seed)))]
    flow = (*TURBULENCE, "--NX", name.removeprefix("turbulence_"), "--seed", str(seed))
    start = folder / "spin_up"
    return [
        (start, (*flow, *SPIN_UP)),
        (folder, (*flow, *FRAMES, "--ic_file", str(start / "output.h5"))),
    ]


def simulate(folder: Path, solver: Sequence[str], begun: Callable[[subprocess.Popen[bytes]], None]) -> bool:
    """Begin or continue a run, unless it is complete; returns whether it is then."""
    if is_complete(folder):
        return True
    folder.mkdir(parents=True, exist_ok=True)
    module, *flags = solver
    rest = ["--resume"] if (folder / "checkpoint.npz").exists() else ["--overwrite", *flags]
    words = [sys.executable, "-m", module, "--output_dir", str(folder), *rest]
    with open(folder / "run.log", "ab") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        begun(process)
        process.wait()
    return is_complete(folder)


def is_complete(folder: Path) -> bool:
    """Whether the run of a folder came to its end."""
    path = folder / "output.h5"
    return path.exists() and bool(read_hdf5_info(path).metadata["complete"])


def main(argv: Sequence[str] | None = None) -> int:
    """Make the flows that the command line names; return the exit code."""

    def command() -> None:
        name = "python -m gust_torch.study_data"
        make_study_data(parse(StudyData, argv, prog=name, description=str(__doc__), underscores=True))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
