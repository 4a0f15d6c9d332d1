"""Cost of a convection run: a step, a change of the time step, a simulated time unit, on one rank and two."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from mpi4py import MPI

from benchmarks.timing import Row
from solvers.rayleigh_benard.config import RBCConfig
from solvers.rayleigh_benard.initial import noise
from solvers.rayleigh_benard.simulate import Run

RAYLEIGH = 1e6
RESOLUTION = (256, 64)
SPIN_UP, STOP = 7.0, 10.0
START_AMPLITUDE = 0.1  # of the noise: the flow is turbulent after a few time units
ORIGINAL_CFL = 1 / 256  # 0.5 / 4 / 32, the original's default
ORIGINAL_STEPS = 40
CHANGES = 6
TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Measurement:
    """Figures of a turbulent run, from `SPIN_UP` to `STOP`.

    Attributes:
        step_ms: median step.
        change_ms: median extra time of a step with a new dt, which factorizes all matrices.
        num_changes: such steps in the whole run.
        num_steps: all steps of the whole run.
        share: of the wall-clock time spent in Dedalus's step; the rest is looks, frames and checkpoints.
        unit_seconds: wall-clock time of one time unit.
        original_unit_seconds: the same at the original's CFL number.
    """

    step_ms: float
    change_ms: float
    num_changes: int
    num_steps: int
    share: float
    unit_seconds: float
    original_unit_seconds: float


class StepTimer:
    """Stands in for a run's step and notes (start, end, dt) of every call.

    Attributes:
        calls: what was noted.
    """

    def __init__(self, run: Run) -> None:
        self.calls: list[tuple[float, float, float]] = []
        self._step = run.flow.step
        setattr(run.flow, "step", self.step)  # noqa: B010

    def step(self, dt: float) -> None:
        """Advance, timed."""
        start = perf_counter()
        self._step(dt)
        self.calls.append((start, perf_counter(), dt))

    def typical(self, steps: Sequence[float]) -> float:
        """Advance by the given steps; median seconds of one."""
        for dt in steps:
            self.step(dt)
        return median(stop - start for start, stop, _ in self.calls[-len(steps) :])


def measure(
    resolution: tuple[int, int] = RESOLUTION, spin_up: float = SPIN_UP, stop: float = STOP
) -> Measurement:
    """Run at Ra = 1e6 from a lively start and time it; collective over the ranks."""
    config = RBCConfig(rayleigh=RAYLEIGH, resolution=resolution, stop_sim_time=stop)
    comm = MPI.COMM_WORLD
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(comm.bcast(folder)))
        x, z = (basis.global_grid(run.flow.dist, scale=1).ravel() for basis in run.flow.bases)
        run.flow.set_buoyancy((1 - z)[None, :] + START_AMPLITUDE * noise(config, x, z))
        timer = StepTimer(run)
        run.execute()
        end = perf_counter()
        calls = list(timer.calls)
        original = ORIGINAL_CFL / run.sampler.probe().rate
        run.flow.step(original)  # factorizes
        original_seconds = timer.typical([original] * ORIGINAL_STEPS)
        changing_seconds = timer.typical([original * (1 + 0.1 * (-1) ** i) for i in range(CHANGES)])
        comm.Barrier()
    first = next(i for i in range(len(calls)) if sum(dt for _, _, dt in calls[:i]) >= spin_up)
    seconds = [stop - start for start, stop, _ in calls[first:]]
    return Measurement(
        step_ms=1e3 * median(seconds),
        change_ms=1e3 * (changing_seconds - original_seconds),
        num_changes=run.clock.changes,
        num_steps=len(calls),
        share=sum(seconds) / (end - calls[first][0]),
        unit_seconds=(end - calls[first][0]) / sum(dt for _, _, dt in calls[first:]),
        original_unit_seconds=original_seconds / original,
    )


def benchmark_rbc() -> list[Row]:
    """Table of the figures on one rank and, where there is mpirun, on two."""
    rows = _rows(_measure_elsewhere(1), "1 rank")
    if shutil.which("mpirun") is not None:
        rows += _rows(_measure_elsewhere(2), "2 ranks")
    return rows


def _measure_elsewhere(ranks: int) -> Measurement:
    """Figures from fresh processes: numpy has chosen its threads in this one, and MPI its number of ranks.

    Raises:
        OSError: If the processes fail.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    launcher = [] if ranks == 1 else ["mpirun", "-n", str(ranks)]
    command = [*launcher, sys.executable, "-m", "benchmarks.rbc"]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    if result.returncode:
        raise OSError(f"{' '.join(command)}: exit code {result.returncode}: {result.stderr[-500:]}")
    return Measurement(**json.loads(result.stdout.splitlines()[-1]))


def _rows(figures: Measurement, ranks: str) -> list[Row]:
    """Table lines of one measurement."""
    size = f"Ra=1e6 {RESOLUTION[0]}x{RESOLUTION[1]} RK222, {ranks}"
    changes = f"{figures.num_changes} in {figures.num_steps} steps"
    original = f"the same at the original's CFL 1/{1 / ORIGINAL_CFL:g}"
    return [
        Row(f"step, {size}", figures.step_ms, "ms"),
        Row(f"change of dt ({changes}), {size}", figures.change_ms, "ms", figures.step_ms, "a step"),
        Row(f"share of Dedalus's step, {size}", 100 * figures.share, "%", 100.0, "the whole run", ">= 0.95"),
        Row(
            f"time unit, {size}",
            figures.unit_seconds,
            "s",
            figures.original_unit_seconds,
            original,
            "<= 0.05",
        ),
    ]


def main() -> None:
    """Print the figures of this communicator as one line of JSON."""
    figures = measure()
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(dataclasses.asdict(figures)))


if __name__ == "__main__":
    main()
