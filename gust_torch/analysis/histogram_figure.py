"""Figure of the value distributions of data and decoded tokens."""

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gust_torch.figures import GRAY, RECONSTRUCTION, REFERENCE, STYLE, field_label
from gust_torch.metrics.histogram import ValueHistogram
from gust_torch.spec import FieldSpec


def histogram_figure(histogram: ValueHistogram, spec: FieldSpec) -> Figure:
    """Draw one panel a field: probability densities on a logarithmic axis, tails included."""
    with matplotlib.rc_context(STYLE):
        columns = min(spec.num_channels, 3)
        rows = math.ceil(spec.num_channels / columns)
        figure = Figure(figsize=(5.0 * columns, 3.8 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for channel, name in enumerate(spec.names):
            _draw(panels[channel], histogram, channel, field_label(name, spec).text)
            panels[channel].legend(loc="upper left")
            # Chebyshev nodes crowd at the walls, and each of them counts once.
            over = " over grid points" if spec.grid_y == "chebyshev" else ""
            panels[channel].set_ylabel(f"probability density{over}")
        for unused in panels[spec.num_channels :]:
            unused.remove()
        return figure


def _draw(axes: Axes, histogram: ValueHistogram, channel: int, label: str) -> None:
    """One field: two densities, the Gaussian of the data's moments, and the distances."""
    counts, edge_tensor = histogram.coarse(channel)
    edges = edge_tensor.numpy()
    width = edges[1] - edges[0]
    density = counts.double().numpy() / counts.sum(-1, keepdim=True).double().numpy() / width
    axes.stairs(density[0], edges, fill=True, color="0.85", zorder=0)
    for values, style, name in zip(
        density, (REFERENCE, RECONSTRUCTION), ("data", "decoded tokens"), strict=True
    ):
        axes.stairs(values, edges, label=name, zorder=2, **style)

    middle = 0.5 * (edges[1:] + edges[:-1])
    mean = float((density[0] * middle).sum() * width)
    std = math.sqrt(float((density[0] * (middle - mean) ** 2).sum() * width))
    smallest, largest = density[density > 0].min(), density.max()
    # A reference for fields that swing about zero; buoyancy between two walls is nothing like it.
    if std > 0 and abs(mean) < 0.5 * std:
        gaussian = np.exp(-0.5 * ((middle - mean) / std) ** 2) / (math.sqrt(2 * math.pi) * std)
        axes.plot(middle, gaussian, color=GRAY, linewidth=0.9, linestyle="-.", label="Gaussian", zorder=1)
    axes.set_yscale("log")
    axes.set_ylim(smallest / 2, largest * 8)
    axes.set_xlim(edges[0] - width, edges[-1] + width)

    distances = histogram.distances(channel)
    lines = (
        f"JS = {distances.js_divergence:.2g} nats",
        f"TV = {distances.total_variation:.2g}",
        f"$W_1$ = {distances.wasserstein1:.2g}",
    )
    axes.text(0.98, 0.97, "\n".join(lines), transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.set_xlabel(f"{label} (nondimensional)")
