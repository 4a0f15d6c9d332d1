"""Picture of one frame of a convection run.

python -m solvers.rayleigh_benard.plot rbc_output/output.h5 picture.png --frame -1
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from solvers.common.cli import run_command
from solvers.common.hdf5_utils import num_samples, open_file

matplotlib.use("Agg")
from matplotlib import pyplot as plt

WIDTH_INCHES, DOTS_PER_INCH = 9.0, 130
CLIPPED_PERCENT = 4.0  # of the values of a signed field lie beyond its colors


def plot_frame(path: Path, image: Path, frame: int = -1) -> None:
    """Draw every scalar field of a frame, x to the right and z upwards, and save the picture.

    Args:
        path: output of a run.
        image: file to write; its suffix chooses the format.
        frame: index, negative ones count from the end.

    Raises:
        ValueError: If the file is none of ours, or has no such frame.
        OSError: If the picture cannot be written.
    """
    with open_file(path) as file:
        count = num_samples(file)
        if not -count <= frame < count:
            raise ValueError(f"{path}: expected a frame below {count}, got {frame}")
        frame %= count
        x, z = file["coordinates/x"][:], file["coordinates/y"][:]
        fields = {name: data[frame] for name, data in file["fields"].items() if data.ndim == 3}
        time = float(file["coordinates/time"][frame])
        rayleigh = file["metadata"].attrs.get("rayleigh", np.nan)
    figure, rows = plt.subplots(
        len(fields),
        1,
        figsize=(WIDTH_INCHES, 2.35 * len(fields)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (name, values) in zip(rows[:, 0], fields.items(), strict=True):
        _draw(axes, name, x, z, values)
    rows[0, 0].set_title(f"Ra = {rayleigh:g}, t = {time:g}, {len(x)} x {len(z)}")
    rows[-1, 0].set_xlabel("x")
    figure.savefig(image, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _draw(axes: plt.Axes, name: str, x: np.ndarray, z: np.ndarray, values: np.ndarray) -> None:
    """One field (nx, nz) on its own, possibly uneven points."""
    if name == "buoyancy":
        low, high, colors = float(values.min()), float(values.max()), "inferno"
    else:
        high = float(np.percentile(np.abs(values), 100 - CLIPPED_PERCENT)) or 1.0
        low, colors = -high, "RdBu_r"
    mesh = axes.pcolormesh(
        x, z, values.T, cmap=colors, vmin=low, vmax=high, shading="gouraud", rasterized=True
    )
    axes.set_aspect("equal")
    axes.set_ylabel("z")
    axes.figure.colorbar(mesh, ax=axes, label=name, pad=0.01)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m solvers.rayleigh_benard.plot", description=__doc__)
    parser.add_argument("path", type=Path, help="output.h5 of a run")
    parser.add_argument("image", type=Path, help="picture to write")
    parser.add_argument("--frame", type=int, default=-1, help="index (default: the last)")
    arguments = parser.parse_args(argv)
    return run_command(
        lambda: plot_frame(arguments.path, arguments.image, arguments.frame), stopped="stopped"
    )


if __name__ == "__main__":
    sys.exit(main())
