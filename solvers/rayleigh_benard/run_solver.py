"""Simulate Rayleigh-Bénard convection with Dedalus and write the common HDF5 format.

    python -m solvers.rayleigh_benard.run_solver --output_dir ./rbc_output --rayleigh 1e6 --resolution 512x128
    mpirun -n 4 python -m solvers.rayleigh_benard.run_solver --output_dir ./rbc_output

Frames go to OUTPUT_DIR/output.h5 while the run advances; OUTPUT_DIR/checkpoint.npz holds what --resume needs.
Exit code: 0 at the end, 1 after an error, 128 + signal after SIGTERM or SIGINT (a checkpoint is written
first).
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solvers.common.cli import one_line
from solvers.rayleigh_benard.config import (
    CFL_NUMBER,
    CHECKPOINT_NAME,
    FIELD_COMPONENTS,
    GRIDS,
    INITIAL_CONDITIONS,
    MULTISTEP_SCHEMES,
    ONE_STEP_SCHEMES,
    RBCConfig,
)
from solvers.rayleigh_benard.install import INSTALL_HINT

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def build_parser() -> argparse.ArgumentParser:
    """Command line; defaults are those of `RBCConfig`."""
    default = RBCConfig().plain()
    parser = argparse.ArgumentParser(
        prog="python -m solvers.rayleigh_benard.run_solver",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    schemes = ONE_STEP_SCHEMES + MULTISTEP_SCHEMES

    def parameter(name: str, text: str, **options: Any) -> None:
        # None where the flag is not given, so that --resume can tell it from one that repeats the default.
        add(f"--{name}", help=f"{text} (default: {default[name]})", **options)

    add("--output_dir", type=Path, required=True, help="directory of output.h5 and checkpoint.npz")
    parameter("rayleigh", "Rayleigh number, for dT = 1", type=float)
    parameter("prandtl", "Prandtl number", type=float)
    parameter("dT", "temperature difference of the walls and of the initial profile", type=float)
    parameter("resolution", "modes and points, NXxNZ")
    parameter("seed", "of the initial noise", type=int)
    parameter("init", "initial condition", choices=INITIAL_CONDITIONS)
    parameter("safety_factor", f"divides the CFL number {CFL_NUMBER}", type=float)
    parameter("stop_sim_time", "end of the run, in free-fall times", type=float)
    parameter("snapshot_dt", "time between frames", type=float)
    parameter("timestepper", "Dedalus scheme", choices=schemes)
    parameter("grid", "Gauss nodes or cell centers in z", choices=GRIDS)
    parameter("fields", f"any of {', '.join(FIELD_COMPONENTS)}", nargs="+", metavar="NAME")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    existing.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the directory; its parameters are remembered, and only stop_sim_time and "
        "safety_factor may change",
    )
    add(
        "--log_level",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        default="INFO",
        help="default: %(default)s",
    )
    return parser


def config_from(arguments: argparse.Namespace) -> RBCConfig:
    """Run parameters: the flags given, else those of the run to resume, else the defaults.

    Raises:
        ValueError: If one is not valid, or there is no run to resume.
    """
    values = {name: vars(arguments)[name] for name in RBCConfig().plain() if name in arguments}
    given = {name: value for name, value in values.items() if value is not None}
    if arguments.fields is not None:
        given["fields"] = ",".join(arguments.fields)
    if not arguments.resume:
        return RBCConfig.from_plain(given)
    from solvers.common.checkpoint import load_checkpoint  # loads numpy: after OMP_NUM_THREADS is set

    saved = load_checkpoint(arguments.output_dir / CHECKPOINT_NAME).meta
    return RBCConfig.from_plain({**saved, **given})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    # Ranks are the parallelism, threads below them only compete; numpy reads this when it is loaded, below.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.basicConfig(level=arguments.log_level, format=LOG_FORMAT, datefmt="%H:%M:%S")
    rank = 0
    try:
        config = config_from(arguments)
        try:
            from mpi4py import MPI

            from solvers.rayleigh_benard.ranks import abort_on_surprise
            from solvers.rayleigh_benard.simulate import Run
        except ImportError as error:
            raise ValueError(f"{INSTALL_HINT} ({error})") from error
        abort_on_surprise(MPI.COMM_WORLD)
        rank = MPI.COMM_WORLD.rank
        if rank:
            logging.getLogger().setLevel(logging.ERROR)
        run = Run(config, arguments.output_dir, overwrite=arguments.overwrite, resume=arguments.resume)
        return run.execute()
    except (ValueError, OSError, FloatingPointError) as error:
        if rank == 0:
            print(f"error: {one_line(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
