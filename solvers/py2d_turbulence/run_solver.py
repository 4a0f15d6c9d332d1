"""Simulate forced two-dimensional turbulence and write the common HDF5 format.

    python -m solvers.py2d_turbulence.run_solver --output_dir ./py2d_output --Re 1000 --NX 256 --tTotal 5.0

    d omega/dt + div(u omega) = (1/Re) lap(omega) - alpha omega + beta v - F,
    F = fky cos(fky y) + fkx cos(fkx x),    on the periodic square [0, 2 pi)^2

Vorticity frames and diagnostics go to OUTPUT_DIR/output.h5 while the run advances, readable at every moment;
OUTPUT_DIR/checkpoint.npz holds what --resume needs. The box is 2 pi wide; in one unit of time the forcing
accelerates resting fluid to speed 1.
Exit code: 0 at the end, 1 after an error or a blow-up, 130 or 143 after Ctrl-C or SIGTERM (a checkpoint is
written first; a second signal ends the program at once).
"""

import logging
import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from solvers.common.cli import ExistingRun, find_resumed, parse, run_command
from solvers.py2d_turbulence.config import CHECKPOINT_NAME, Options, RunConfig


@dataclass(frozen=True)
class Arguments:
    """The command line; nested parameters are flags without a prefix."""

    options: Annotated[Options, tyro.conf.arg(name="")]
    flow: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    existing: Annotated[ExistingRun, tyro.conf.arg(name="")] = field(default_factory=ExistingRun)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_command(
        lambda: _run(argv), stopped="stopped before the first step; the same command starts again"
    )


def _run(argv: list[str] | None) -> int:
    default = None
    if folder := find_resumed(argv):  # the saved run is the default of what is not given again
        from solvers.common.checkpoint import load_checkpoint
        from solvers.py2d_turbulence.output import parameters_of

        path = folder / CHECKPOINT_NAME
        saved = parameters_of(path, load_checkpoint(path, arrays=False))
        default = Arguments(Options(folder), RunConfig(**saved))
    arguments = parse(
        Arguments,
        argv,
        prog="python -m solvers.py2d_turbulence.run_solver",
        description=__doc__,
        underscores=True,
        default=default,
    )
    # Here: --help answers without numpy, scipy and numba.
    from solvers.py2d_turbulence.simulate import resume, start

    if arguments.existing.resume:
        return resume(arguments.flow, arguments.options)
    return start(arguments.flow, arguments.options, overwrite=arguments.existing.overwrite)


if __name__ == "__main__":
    sys.exit(main())
