"""Command line of the common HDF5 format: info, validate and repack."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from solvers.common.cli import run_command
from solvers.common.hdf5.filters import COMPRESSIONS, filter_names
from solvers.common.hdf5.reader import field_datasets, open_file, read_hdf5_info
from solvers.common.hdf5.repack import repack
from solvers.common.hdf5.schema import HDF5Info
from solvers.common.hdf5.validation import validate
from solvers.common.progress import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _run(options), stopped="stopped; nothing was changed")


def _run(options: argparse.Namespace) -> int:
    """Run the command that was parsed."""
    if options.command == "info":
        print("\n".join(describe(options.file)))
        return 0
    if options.command == "validate":
        return _validate(options.file)
    compression = None if options.compression == "none" else options.compression
    return _repack(options.file, options.output, compression, options.overwrite)


def describe(path: str) -> list[str]:
    """Return what a file holds, a line for each fact.

    Raises:
        ValueError: If it is not a file of the format.
    """
    info = read_hdf5_info(path)
    state = {True: "complete", False: "not complete: being written, or its writer was stopped"}
    complete = info.metadata.get("complete")
    lines = [
        f"file          {info.path} ({_size(info.path)})",
        f"samples       {info.num_samples}" + ("" if complete is None else f" ({state[bool(complete)]})"),
        f"trajectories  {info.num_trajectories}",
    ]
    lines += [f"field         {line}" for line in _storage(path, info)]
    for name, values in info.coordinates.items():
        lines.append(f"coordinate    {name} {values.shape} {_range(values)}")
    lines += [f"parameter     {name} {_range(values)}" for name, values in info.parameters.items()]
    if info.scalars:
        lines.append(f"scalars       {', '.join(info.scalars)}")
    lines += [f"metadata      {name} = {value}" for name, value in sorted(info.metadata.items())]
    return lines


def _storage(path: str, info: HDF5Info) -> list[str]:
    """Name, shape, type, chunk and compression of each field."""
    lines = []
    with open_file(path) as file:
        for name, dataset in field_datasets(file).items():
            shape, dtype = info.fields[name]
            stored = "+".join(filter_names(dataset)) or "uncompressed"
            lines.append(f"{name} {shape} {dtype}, chunk {dataset.chunks}, {stored}")
    return lines


def _range(values: np.ndarray) -> str:
    """ "3" for one value, "0 .. 6.23" for several."""
    if values.size == 0:
        return "(none)"
    low, high = values.min(), values.max()
    return f"{low:.6g}" if low == high else f"{low:.6g} .. {high:.6g}"


def _size(path: Path) -> str:
    """Size of a file, e.g. "16.9 MB"."""
    size = float(path.stat().st_size)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def _validate(path: str) -> int:
    """Print every violation, or that there is none."""
    violations = validate(path)
    for violation in violations:
        print(violation)
    if not violations:
        print(f"{path}: valid")
    return 1 if violations else 0


def _repack(path: str, output: str | None, compression: str | None, overwrite: bool) -> int:
    """Rewrite a file and say what it is now."""
    info = read_hdf5_info(path)
    before = _size(info.path)
    with Progress(info.num_samples * len(info.fields), unit="frame", description="repack") as progress:
        target = repack(path, output=output, compression=compression, overwrite=overwrite, progress=progress)
    print(f"{target}: {before} -> {_size(target)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    """Arguments of the three commands."""
    parser = argparse.ArgumentParser(
        prog="python -m solvers.common.hdf5_utils",
        description="Look at, check or rewrite a file of the common format.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("info", "print what a file holds"),
        ("validate", "print every violation of the format; exit code 1 if there is one"),
        ("repack", "rewrite a file with one frame a chunk, for fast random reads"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("file", metavar="FILE")
    command.add_argument("--output", metavar="FILE", help="file to write (default: replace FILE)")
    command.add_argument(
        "--compression",
        choices=("none", *COMPRESSIONS),
        default="none",
        help="lz4 needs hdf5plugin to read (default: none)",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    return parser
