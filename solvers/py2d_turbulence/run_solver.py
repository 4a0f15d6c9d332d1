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

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solvers.common.checkpoint import changed_parameters, load_checkpoint
from solvers.common.cli import one_line
from solvers.common.hdf5.filters import COMPRESSIONS
from solvers.py2d_turbulence.config import DTYPES, RunConfig
from solvers.py2d_turbulence.restart import read_checkpoint
from solvers.py2d_turbulence.simulate import CHECKPOINT_SECONDS, Options, resume, start


def build_parser() -> argparse.ArgumentParser:
    """Return the command line. A parameter that is not given is None: its default is that of `RunConfig`."""
    default = RunConfig().parameters()
    parser = argparse.ArgumentParser(
        prog="python -m solvers.py2d_turbulence.run_solver",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="directory of the output; made if missing"
    )

    flow = parser.add_argument_group("flow")
    _parameter(flow, "Re", float, default, "Reynolds number, 1/viscosity")
    _parameter(flow, "fkx", int, default, "forcing wavenumber in x, 0 for none")
    _parameter(flow, "fky", int, default, "forcing wavenumber in y, 0 for none")
    _parameter(flow, "alpha", float, default, "linear drag, a rate per unit time")
    _parameter(flow, "beta", float, default, "gradient of the Coriolis parameter; waves drift to +x")
    _parameter(flow, "seed", int, default, "seed of the random initial field, the same flow at every NX")
    _parameter(
        flow, "ic_file", str, default, "initial vorticity instead: .mat (Omega), .npz (omega0 or omega), .h5"
        " of the common format (last frame); any resolution"
    )  # fmt: skip

    numerics = parser.add_argument_group("resolution and time, in time units of the equation")
    _parameter(numerics, "NX", int, default, "grid points in x and in y, an even number")
    _parameter(numerics, "dt", float, default, "time step")
    _parameter(numerics, "tTotal", float, default, "length of the run, a multiple of dt")
    _parameter(numerics, "tSave", float, default, "time between frames, a multiple of dt; t = 0 is saved too")
    _parameter(numerics, "dtype", str, default, "precision of the transforms; frames are float32", DTYPES)
    numerics.add_argument(
        "--skip_stability_check",
        action="store_true",
        help="start even if dt is too large for the initial flow",
    )
    _add_execution(parser.add_argument_group("execution"))
    return parser


def _add_execution(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workers",
        type=int,
        default=0,
        help="threads, results do not depend on it (default: by NX and cores)",
    )
    group.add_argument(
        "--compression", choices=COMPRESSIONS, help="of the frames (default: none, the fastest)"
    )
    group.add_argument(
        "--checkpoint_interval", type=float, default=CHECKPOINT_SECONDS, metavar="SECONDS",
        help="wall-clock time between checkpoints (default: %(default)g)",
    )  # fmt: skip
    existing = group.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace an earlier run in the directory")
    existing.add_argument(
        "--resume", action="store_true",
        help="continue the run in the directory, bit for bit; its parameters are remembered and need not be "
        "given again, and only tTotal may change",
    )  # fmt: skip


def _parameter(
    group: argparse._ArgumentGroup,
    name: str,
    kind: type,
    default: dict[str, Any],
    text: str,
    choices: Sequence[str] | None = None,
) -> None:
    shown = "none" if default[name] is None else default[name]
    group.add_argument(f"--{name}", type=kind, choices=choices, help=f"{text} (default: {shown})")


def _resume(given: dict[str, Any], options: Options) -> int:
    """Continues the run in the directory, provided that what was given on the command line agrees with it."""
    checkpoint = load_checkpoint(options.checkpoint)
    saved = read_checkpoint(options.checkpoint, checkpoint).parameters
    fixed = {name: value for name, value in given.items() if name != "tTotal"}
    changed = changed_parameters({name: saved[name] for name in fixed}, fixed)
    if changed:
        raise ValueError(
            f"{options.checkpoint}: the run to resume has other parameters ({'; '.join(changed)}); "
            "leave them out, or start anew with --overwrite or another --output_dir"
        )
    return resume(RunConfig(**(saved | given)), options, checkpoint)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    defaults = RunConfig().parameters()
    given = {name: vars(arguments)[name] for name in defaults if vars(arguments)[name] is not None}
    try:
        options = Options(
            output_dir=arguments.output_dir,
            workers=arguments.workers,
            compression=arguments.compression,
            overwrite=arguments.overwrite,
            skip_stability_check=arguments.skip_stability_check,
            checkpoint_interval=arguments.checkpoint_interval,
        )
        if arguments.resume:
            return _resume(given, options)
        return start(RunConfig(**given), options)
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
