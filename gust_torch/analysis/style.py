"""Looks of the figures: color-blind-safe palette, labels of fields, saving without half-written files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gust_torch.spec import FieldSpec, canonical_name
from solvers.common.files import written_aside

# Okabe & Ito (2008), told apart with any color vision; styles differ too, for print in black and white.
BLACK, VERMILLION, BLUE = "#000000", "#D55E00", "#0072B2"
GRAY, NOTE = "#7F7F7F", "#555555"
REFERENCE: dict[str, Any] = {"color": BLACK, "linestyle": "-", "linewidth": 1.6}
RECONSTRUCTION: dict[str, Any] = {"color": VERMILLION, "linestyle": "--", "linewidth": 1.6}
DIFFERENCE: dict[str, Any] = {"color": BLUE, "linestyle": ":", "linewidth": 1.6}

DPI = 160
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "axes.grid": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "mathtext.fontset": "cm",
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}


@dataclass(frozen=True)
class FieldLabel:
    """Name and mathematical symbol of a field."""

    name: str
    symbol: str

    @property
    def text(self) -> str:
        """Both, such as "vorticity $\\omega$"."""
        return f"{self.name} ${self.symbol}$" if self.symbol else self.name


_SYMBOLS = {
    "vorticity": ("vorticity", r"\omega"),
    "buoyancy": ("buoyancy", "b"),
    "pressure": ("pressure", "p"),
    "velocity_x": ("velocity", "u"),
    "velocity_y": ("velocity", "v"),
    "density": ("density", r"\rho"),
    "psi": ("stream function", r"\psi"),
}


def field_label(name: str, spec: FieldSpec) -> FieldLabel:
    """Label of a channel; the second velocity component is w where the second axis is vertical."""
    known, symbol = _SYMBOLS.get(canonical_name(name), (name.replace("_", " "), ""))
    if canonical_name(name) == "velocity_y" and spec.boundary[1] == "wall":
        symbol = "w"
    return FieldLabel(known, symbol)


def axis_names(spec: FieldSpec) -> tuple[str, str]:
    """Names of the two axes: x and y, or x and z where the second one runs between walls."""
    return ("x", "z" if spec.boundary[1] == "wall" else "y")


def transform_note(spec: FieldSpec, *, wall_modes: str = "cosine") -> str:
    """How spectra are taken on the axes of these data.

    Args:
        spec: The data's axes.
        wall_modes: "cosine", or "sine" for kinetic energy from the vorticity.
    """
    if spec.boundary == ("periodic", "periodic"):
        return "Fourier transform along both axes"
    parts = []
    for axis, (name, boundary) in enumerate(zip(axis_names(spec), spec.boundary, strict=True)):
        if boundary == "periodic":
            parts.append(f"Fourier transform along {name}")
        else:
            nodes = ", interpolated from Chebyshev nodes" if axis == 1 and spec.grid_y == "chebyshev" else ""
            parts.append(f"{wall_modes} transform along {name} (walls{nodes})")
    return ", ".join(parts)


def length_ticks(axes: Axes, lengths: tuple[float, float]) -> None:
    """Few ticks along the spatial axes, as multiples of pi on a side of 2 pi."""
    for axis, length in zip((axes.xaxis, axes.yaxis), lengths, strict=True):
        in_pi = math.isclose(length, 2 * math.pi, rel_tol=1e-3)
        values = [0.0, length / 2, length]
        axis.set_ticks(values, ["0", r"$\pi$", r"$2\pi$"] if in_pi else [f"{value:g}" for value in values])


def save_figure(figure: Figure, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a PNG beside its final name and rename it, so that a reader never meets half a picture.

    Args:
        figure: Any figure.
        path: Final name, ``.png``.
        metadata: Text chunks of the PNG: what made it and from what.
    """
    with written_aside(path) as file:
        figure.savefig(file, format="png", metadata=dict(metadata))
