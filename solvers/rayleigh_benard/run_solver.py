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

from solvers.rayleigh_benard.config import (
    FIELD_COMPONENTS,
    GRIDS,
    INITIAL_CONDITIONS,
    MULTISTEP_SCHEMES,
    ONE_STEP_SCHEMES,
    RBCConfig,
    parse_resolution,
)
from solvers.rayleigh_benard.install import INSTALL_HINT

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
SHOWN = "default: %(default)s"


def build_parser() -> argparse.ArgumentParser:
    """Command line; defaults are those of `RBCConfig`."""
    default = RBCConfig()
    parser = argparse.ArgumentParser(
        prog="python -m solvers.rayleigh_benard.run_solver",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    schemes = ONE_STEP_SCHEMES + MULTISTEP_SCHEMES
    resolution = "x".join(map(str, default.resolution))
    add("--output_dir", type=Path, required=True, help="directory of output.h5 and checkpoint.npz")
    add("--rayleigh", type=float, default=default.rayleigh, help=f"for dT = 1 ({SHOWN})")
    add("--prandtl", type=float, default=default.prandtl, help=SHOWN)
    add("--dT", type=float, default=default.dT, help=f"of walls and initial profile ({SHOWN})")
    add("--resolution", default=resolution, help=f"NXxNZ ({SHOWN})")
    add("--seed", type=int, default=default.seed, help=f"of the initial noise ({SHOWN})")
    add("--init", choices=INITIAL_CONDITIONS, default=default.init, help=f"initial condition ({SHOWN})")
    add("--safety_factor", type=float, default=default.safety_factor, help=f"divides CFL 0.4 ({SHOWN})")
    add("--stop_sim_time", type=float, default=default.stop_sim_time, help=f"end of the run ({SHOWN})")
    add("--snapshot_dt", type=float, default=default.snapshot_dt, help=f"time between frames ({SHOWN})")
    add("--timestepper", choices=schemes, default=default.timestepper, help=f"Dedalus scheme ({SHOWN})")
    add("--grid", choices=GRIDS, default=default.grid, help=f"Gauss nodes or cell centres in z ({SHOWN})")
    add(
        "--fields",
        nargs="+",
        default=list(default.fields),
        metavar="NAME",
        help=f"{', '.join(FIELD_COMPONENTS)}",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    existing.add_argument("--resume", action="store_true", help="continue an earlier output")
    add("--log_level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO", help=SHOWN)
    return parser


def config_from(arguments: argparse.Namespace) -> RBCConfig:
    """Run parameters from the command line.

    Raises:
        ValueError: If one is not valid.
    """
    return RBCConfig(
        rayleigh=arguments.rayleigh,
        prandtl=arguments.prandtl,
        dT=arguments.dT,
        resolution=parse_resolution(arguments.resolution),
        seed=arguments.seed,
        init=arguments.init,
        safety_factor=arguments.safety_factor,
        stop_sim_time=arguments.stop_sim_time,
        snapshot_dt=arguments.snapshot_dt,
        timestepper=arguments.timestepper,
        grid=arguments.grid,
        fields=tuple(arguments.fields),
    )


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
            print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
