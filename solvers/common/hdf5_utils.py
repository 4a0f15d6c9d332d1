"""THE common HDF5 format: its public functions, and a command line (info, validate, repack)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tyro

from solvers.common.cli import parse, run_command
from solvers.common.files import format_bytes
from solvers.common.hdf5.reader import num_samples, open_file, read_hdf5_info
from solvers.common.hdf5.repack import repack
from solvers.common.hdf5.schema import FORMAT_VERSION, HDF5Info, filter_names
from solvers.common.hdf5.validation import validate
from solvers.common.hdf5.writer import HDF5Writer
from solvers.common.progress import Progress

__all__ = [
    "FORMAT_VERSION",
    "HDF5Info",
    "HDF5Writer",
    "num_samples",
    "open_file",
    "read_hdf5_info",
    "repack",
    "validate",
]

PROGRAM = "python -m solvers.common.hdf5_utils"


@dataclass(frozen=True)
class Info:
    """Print what a file holds."""

    file: tyro.conf.Positional[str]

    def run(self) -> int:
        """Print a line for each fact."""
        info = read_hdf5_info(self.file)
        state = {True: " (complete)", False: " (not complete: being written, or its writer was stopped)"}
        complete = info.metadata.get("complete")
        lines = [
            ("file", f"{info.path} ({format_bytes(info.path.stat().st_size)})"),
            ("samples", f"{info.num_samples}{'' if complete is None else state[bool(complete)]}"),
            ("trajectories", info.num_trajectories),
        ]
        with open_file(self.file) as file:
            for name, (shape, dtype) in info.fields.items():
                dataset = file["fields"][name]
                stored = "+".join(filter_names(dataset)) or "uncompressed"
                lines.append(("field", f"{name} {shape} {dtype}, chunk {dataset.chunks}, {stored}"))
        lines += [("coordinate", f"{name} {v.shape} {_range(v)}") for name, v in info.coordinates.items()]
        lines += [("parameter", f"{name} {_range(values)}") for name, values in info.parameters.items()]
        if info.scalars:
            lines.append(("scalars", ", ".join(info.scalars)))
        lines += [("metadata", f"{name} = {value}") for name, value in sorted(info.metadata.items())]
        lines += [("problem", text) for text in validate(self.file)]
        print("\n".join(f"{word:13} {fact}" for word, fact in lines))
        return 0


@dataclass(frozen=True)
class Validate:
    """Print every violation of the format; exit code 1 if there is one."""

    file: tyro.conf.Positional[str]

    def run(self) -> int:
        """Print them, or that there is none."""
        violations = validate(self.file)
        print("\n".join(violations) if violations else f"{self.file}: valid")
        return 1 if violations else 0


@dataclass(frozen=True)
class Repack:
    """Rewrite a file with one frame a chunk, for fast random reads."""

    file: tyro.conf.Positional[str]
    output: str | None = None
    """File to write; by default it replaces FILE."""
    compression: Literal["none", "lz4", "gzip"] = "none"
    """lz4 needs hdf5plugin to read."""
    overwrite: bool = False
    """Replace an existing --output."""

    def run(self) -> int:
        """Rewrite the file and say what it is now."""
        info = read_hdf5_info(self.file)
        before = format_bytes(info.path.stat().st_size)
        with Progress(info.num_samples * len(info.fields), unit="frame", description="repack") as progress:
            target = repack(
                self.file,
                output=self.output,
                compression=None if self.compression == "none" else self.compression,
                overwrite=self.overwrite,
                progress=progress,
            )
        print(f"{target}: {before} -> {format_bytes(target.stat().st_size)}")
        return 0


COMMANDS: dict[str, type[Info | Validate | Repack]] = {"info": Info, "validate": Validate, "repack": Repack}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands info, validate and repack; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        lines = [f"  {name:10}{options.__doc__}" for name, options in COMMANDS.items()]
        wants_help = given[:1] in (["-h"], ["--help"])
        stream = sys.stdout if wants_help else sys.stderr
        print("\n".join([f"usage: {PROGRAM} COMMAND FILE", *lines]), file=stream)
        return 0 if wants_help else 2
    options = COMMANDS[given[0]]
    program = f"{PROGRAM} {given[0]}"
    return run_command(
        lambda: parse(options, given[1:], prog=program, description=str(options.__doc__)).run(),
        stopped="stopped; nothing was changed",
    )


def _range(values: np.ndarray) -> str:
    """ "3" for one value, "0 .. 6.23" for several."""
    if values.size == 0:
        return "(none)"
    low, high = values.min(), values.max()
    return f"{low:.6g}" if low == high else f"{low:.6g} .. {high:.6g}"


if __name__ == "__main__":
    sys.exit(main())
