"""Cost of a convection run: a step, a change of the time step, a simulated time unit, on one rank and two."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from mpi4py import MPI

from benchmarks.common import Row
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


def benchmark_rbc() -> list[Row]:
    """Table of the figures on one rank and, where there is mpirun, on two.

    They come from fresh processes: numpy has chosen its threads in this one, and MPI its number of ranks.

    Raises:
        OSError: If the processes fail.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    rows = []
    for ranks in (1, 2) if shutil.which("mpirun") else (1,):
        launcher = [] if ranks == 1 else ["mpirun", "-n", str(ranks)]
        command = [*launcher, sys.executable, "-m", "benchmarks.rbc"]
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        if result.returncode:
            raise OSError(f"{' '.join(command)}: exit code {result.returncode}: {result.stderr[-500:]}")
        figures = json.loads(result.stdout.splitlines()[-1])
        rows += _rows(figures, "1 rank" if ranks == 1 else f"{ranks} ranks")
    return rows


def _rows(figures: dict[str, float], ranks: str) -> list[Row]:
    """Table lines of one measurement."""
    size = f"Ra=1e6 {RESOLUTION[0]}x{RESOLUTION[1]} RK222, {ranks}"
    changes = f"change of dt ({figures['num_changes']} in {figures['num_steps']} steps), {size}"
    step, unit = figures["step_ms"], figures["unit_seconds"]
    original = f"the same at the original's CFL 1/{1 / ORIGINAL_CFL:g}"
    return [
        Row(f"step, {size}", step, "ms"),
        Row(changes, figures["change_ms"], "ms", step, "a step"),
        Row(
            f"share of Dedalus's step, {size}", 100 * figures["share"], "%", 100.0, "the whole run", ">= 0.95"
        ),
        Row(f"time unit, {size}", unit, "s", figures["original_unit_seconds"], original, "<= 0.05"),
    ]


def measure() -> dict[str, float]:
    """Run at Ra = 1e6 from a lively start and time it from `SPIN_UP` to `STOP`; collective over the ranks.

    Returns:
        Median milliseconds of a step, and of what a step with a new dt, which factorizes all matrices, takes
        more; the numbers of such steps and of all; the share of time in Dedalus's step, the rest being looks,
        frames and checkpoints; seconds of a time unit, and of one at the original's CFL number.
    """
    config = RBCConfig(rayleigh=RAYLEIGH, resolution=RESOLUTION, stop_sim_time=STOP)
    comm = MPI.COMM_WORLD
    calls: list[tuple[float, float, float]] = []  # start, end, dt of each step
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(comm.bcast(folder)))
        step = run.flow.step

        def timed_step(dt: float) -> None:
            start = perf_counter()
            step(dt)
            calls.append((start, perf_counter(), dt))

        def typical(steps: Sequence[float]) -> float:
            for dt in steps:
                timed_step(dt)
            return median(stop - start for start, stop, _ in calls[-len(steps) :])

        setattr(run.flow, "step", timed_step)  # noqa: B010
        x, z = (basis.global_grid(run.flow.dist, scale=1).ravel() for basis in run.flow.bases)
        run.flow.set_buoyancy((1 - z)[None, :] + START_AMPLITUDE * noise(config, x, z))
        run.execute()
        end, num_steps = perf_counter(), len(calls)
        original = ORIGINAL_CFL / run.sampler.probe().rate
        timed_step(original)  # factorizes
        original_seconds = typical([original] * ORIGINAL_STEPS)
        changing_seconds = typical([original * (1 + 0.1 * (-1) ** i) for i in range(CHANGES)])
        comm.Barrier()
    first = next(i for i in range(num_steps) if sum(dt for _, _, dt in calls[:i]) >= SPIN_UP)
    counted = calls[first:num_steps]
    seconds = [stop - start for start, stop, _ in counted]
    return {
        "step_ms": 1e3 * median(seconds),
        "change_ms": 1e3 * (changing_seconds - original_seconds),
        "num_changes": run.clock.changes,
        "num_steps": num_steps,
        "share": sum(seconds) / (end - counted[0][0]),
        "unit_seconds": (end - counted[0][0]) / sum(dt for _, _, dt in counted),
        "original_unit_seconds": original_seconds / original,
    }


if __name__ == "__main__":
    figures = measure()
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(figures))
