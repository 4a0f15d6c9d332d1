"""Draw one frame of a run, of either solver.

python -m solvers.rayleigh_benard.plot rbc_output/output.h5 picture.png --frame -1
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from solvers.common.cli import parse, run_command

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

WIDTH_INCHES, DOTS_PER_INCH = 7.6, 130  # of one field
LARGEST_HEIGHT_INCHES = 5.5  # so that square domains fit a screen
BESIDE_INCHES = 1.5  # axis labels and color bar
CLIPPED_PERCENT = 4.0  # of the values of a signed field lie beyond its colors
SHOWN_PARAMETERS = {"rayleigh": "Ra", "prandtl": "Pr", "Re": "Re"}


@dataclass(frozen=True)
class Arguments:
    """The command line.

    Attributes:
        path: output.h5 of a run.
        image: picture to write; its suffix chooses the format.
        frame: index; negative ones count from the end.
    """

    path: Annotated[Path, tyro.conf.Positional]
    image: Annotated[Path, tyro.conf.Positional]
    frame: int = -1


def plot_frame(path: Path, image: Path, frame: int = -1) -> None:
    """Draw every field of a frame, x to the right and y (or z) upwards, and save the picture.

    A vector field gives a picture for each component. The colors of signed fields leave out the most extreme
    values; arrows at the ends of the color bar say so.

    Raises:
        ValueError: If the file is none of ours, or has no such frame.
        OSError: If the picture cannot be written.
    """
    import matplotlib

    from solvers.common.hdf5_utils import num_samples, open_file

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with open_file(path) as file:
        count = num_samples(file)
        if not -count <= frame < count:
            raise ValueError(f"{path}: expected a frame below {count}, got {frame}; set --frame")
        frame %= count
        x, y = file["coordinates/x"][:], file["coordinates/y"][:]
        fields = {}
        for name, data in file["fields"].items():
            values = data[frame]
            if values.ndim == 2:
                fields[name] = values
            else:
                count = values.shape[-1]
                ends = "xyz" if count <= 3 else map(str, range(count))
                fields |= {f"{name}_{end}": values[..., i] for i, end in enumerate([*ends][:count])}
        time = float(file["coordinates/time"][frame]) if "coordinates/time" in file else None
        metadata = dict(file["metadata"].attrs)
    axis_names = ("x", "z") if metadata.get("boundary_y") == "wall" else ("x", "y")
    aspect = (y[-1] - y[0]) / (x[-1] - x[0])
    width = min(WIDTH_INCHES, LARGEST_HEIGHT_INCHES / aspect)
    size = width + BESIDE_INCHES, (width * aspect + 0.2) * len(fields) + 0.6
    figure, rows = plt.subplots(
        len(fields), 1, figsize=size, sharex=True, squeeze=False, layout="constrained"
    )
    for axes, (name, values) in zip(rows[:, 0], fields.items(), strict=True):
        _draw(axes, name, x, y, values)
        axes.set_ylabel(axis_names[1])
    rows[0, 0].set_title(_title(metadata, time, (len(x), len(y))))
    rows[-1, 0].set_xlabel(axis_names[0])
    figure.savefig(image, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _title(metadata: dict[str, Any], time: float | None, grid: tuple[int, int]) -> str:
    """ "Ra = 1e+06, Pr = 1, t = 50, 256 x 64", of what the file says."""
    parts = [f"{sign} = {metadata[name]:g}" for name, sign in SHOWN_PARAMETERS.items() if name in metadata]
    parts += [] if time is None else [f"t = {time:g}"]
    return ", ".join([*parts, f"{grid[0]} x {grid[1]}"])


def _draw(axes: "Axes", name: str, x: "np.ndarray", y: "np.ndarray", values: "np.ndarray") -> None:
    """One field (nx, ny) on its own, possibly uneven points."""
    import numpy as np

    if name == "buoyancy":
        low, high, colors = float(values.min()), float(values.max()), "inferno"
    else:
        high = float(np.percentile(np.abs(values), 100 - CLIPPED_PERCENT)) or 1.0
        low, colors = -high, "RdBu_r"
    beyond = values.min() < low, values.max() > high
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(beyond, "neither")
    mesh = axes.pcolormesh(
        x, y, values.T, cmap=colors, vmin=low, vmax=high, shading="gouraud", rasterized=True
    )
    axes.set_aspect("equal")
    axes.figure.colorbar(mesh, ax=axes, label=name, pad=0.01, extend=extend)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def command() -> None:
        program = "python -m solvers.rayleigh_benard.plot"
        given = parse(Arguments, argv, prog=program, description=__doc__ or "")
        plot_frame(given.path, given.image, given.frame)

    return run_command(command, stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
