"""Simulate Rayleigh-Bénard convection with Dedalus and write the common HDF5 format.

    python -m solvers.rayleigh_benard.run_solver --output_dir ./rbc_output --rayleigh 1e6 --resolution 512x128
    mpirun -n 4 python -m solvers.rayleigh_benard.run_solver --output_dir ./rbc_output

Frames go to OUTPUT_DIR/output.h5 while the run advances; OUTPUT_DIR/checkpoint.npz holds what --resume needs.
Exit code: 0 at the end, 1 after an error, 128 + signal after SIGTERM or SIGINT (a checkpoint is written
first).
"""

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from solvers.common.cli import ExistingRun, find_resumed, parse, run_command
from solvers.rayleigh_benard.config import CHECKPOINT_NAME, INSTALL_HINT, RBCConfig

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


@dataclass(frozen=True)
class Arguments:
    """The command line; nested parameters are flags without a prefix.

    Attributes:
        output_dir: directory of output.h5 and checkpoint.npz; made if missing.
        flow: the run.
        existing: what to do about an earlier one.
        log_level: least level of the messages shown.
    """

    output_dir: Path
    flow: Annotated[RBCConfig, tyro.conf.arg(name="")] = field(default_factory=RBCConfig)
    existing: Annotated[ExistingRun, tyro.conf.arg(name="")] = field(default_factory=ExistingRun)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def read_arguments(argv: list[str] | None) -> Arguments:
    """Parse the command line; where a run is resumed, its parameters are the defaults."""
    default = None
    if folder := find_resumed(argv):
        from solvers.common.checkpoint import load_checkpoint  # loads numpy: after OMP_NUM_THREADS is set

        saved = load_checkpoint(folder / CHECKPOINT_NAME, arrays=False).meta
        default = Arguments(folder, RBCConfig.from_plain(saved))
    return parse(
        Arguments,
        argv,
        prog="python -m solvers.rayleigh_benard.run_solver",
        description=__doc__,
        underscores=True,
        default=default,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    # Ranks are the parallelism, threads below them only compete; numpy reads this when it is loaded, below.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return run_command(
        lambda: _run(argv), stopped="stopped before the first step; the same command starts again"
    )


def _run(argv: list[str] | None) -> int:
    arguments = read_arguments(argv)
    logging.basicConfig(level=arguments.log_level, format=LOG_FORMAT, datefmt="%H:%M:%S")
    try:
        from mpi4py import MPI

        from solvers.rayleigh_benard.simulate import Run, abort_on_surprise
    except ImportError as error:
        raise ValueError(f"{INSTALL_HINT} ({error})") from error
    abort_on_surprise(MPI.COMM_WORLD)
    rank = MPI.COMM_WORLD.rank
    if rank:
        logging.getLogger().setLevel(logging.ERROR)
    existing = arguments.existing
    try:
        run = Run(arguments.flow, arguments.output_dir, overwrite=existing.overwrite, resume=existing.resume)
        return run.execute()
    except (ValueError, OSError, FloatingPointError):
        if rank:
            return 1  # rank 0 says it
        raise


if __name__ == "__main__":
    sys.exit(main())
