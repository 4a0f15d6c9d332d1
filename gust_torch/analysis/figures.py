"""The figures of an analysis."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from gust_torch.analysis.passes import Analysis, Example
from gust_torch.analysis.report import Json
from gust_torch.analysis.spectrum_figure import LINES, spectrum_figures
from gust_torch.analysis.sums import RATIOS
from gust_torch.figures import GRAY, STYLE, Array, Comparison, comparison_figure, draw_map, field_label
from gust_torch.metrics.histogram import ValueHistogram
from gust_torch.spec import FieldSpec


def analysis_figures(analysis: Analysis, metrics: Json) -> dict[str, Figure]:
    """Draw everything, file name -> figure, with the numbers of `report.summarize` in it."""
    figures = spectrum_figures(analysis.spectra, metrics)
    if any(field["transform_code"] for field in metrics["fields"].values()):
        figures["rate_distortion.png"] = rate_distortion_figure(metrics)
    figures["pixel_histogram.png"] = histogram_figure(analysis, metrics)
    figures["reconstructions.png"] = reconstruction_figure(analysis.examples, analysis.spec)
    return figures


def rate_distortion_figure(metrics: Json) -> Figure:
    """Draw VRMSE over bits per pixel, a panel a field: curves of code and bound, the point of the tokens."""
    fields = {name: field for name, field in metrics["fields"].items() if field["transform_code"]}
    tokens = metrics["tokens"]["bits_per_pixel_entropy_coded"]
    rates = [ratio * tokens for ratio in RATIOS]
    figure = Figure(figsize=(4.2 * len(fields), 3.4), layout="constrained")
    panels = figure.subplots(1, len(fields), squeeze=False)[0]
    for axes, (name, field) in zip(panels, fields.items(), strict=True):
        code = field["transform_code"]
        axes.loglog(code["bits_per_pixel"], code["vrmse_at_these"], "-", color="0.3", label="transform code")
        axes.loglog(rates, code["gaussian_bound_at_these"], ":", color="0.3", label="Gaussian bound")
        axes.loglog(tokens, field["vrmse"]["mean"], "o", color="C1", label="tokens")
        axes.set(title=name, xlabel="bits per pixel, entropy coded", ylabel="VRMSE")
        axes.grid(which="both", alpha=0.2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.set_minor_formatter("{x:g}")
        axes.legend()
    return figure


def histogram_figure(analysis: Analysis, metrics: Json) -> Figure:
    """Draw one panel a field: probability densities on a logarithmic axis, tails included."""
    spec = analysis.spec
    # Chebyshev nodes crowd at the walls, and each of them counts once.
    over = " over grid points" if spec.grid_y == "chebyshev" else ""
    with matplotlib.rc_context(STYLE):
        columns = min(spec.num_channels, 3)
        rows = math.ceil(spec.num_channels / columns)
        figure = Figure(figsize=(5.0 * columns, 3.8 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for channel, (name, field) in enumerate(metrics["fields"].items()):
            axes = panels[channel]
            _draw_histogram(axes, analysis.histogram, channel)
            axes.set_xlabel(f"{field_label(name, spec)} (nondimensional)")
            axes.set_ylabel(f"probability density{over}")
            axes.legend(loc="upper left")
            js, tv, w1 = (field[key] for key in ("js_divergence", "tv_distance", "wasserstein1"))
            text = f"JS = {js:.2g} nats\nTV = {tv:.2g}\n$W_1$ = {w1:.2g}"
            axes.text(0.98, 0.97, text, transform=axes.transAxes, ha="right", va="top", fontsize=8)
        for unused in panels[spec.num_channels :]:
            unused.remove()
        return figure


def _draw_histogram(axes: Axes, histogram: ValueHistogram, channel: int) -> None:
    """Two densities, and the Gaussian of the data's moments."""
    counts, edges = map(np.asarray, histogram.coarse(channel))
    width = edges[1] - edges[0]
    density = counts / counts.sum(-1, keepdims=True) / width
    axes.stairs(density[0], edges, fill=True, color="0.85", zorder=0)
    for values, name in zip(density, ("data", "decoded tokens"), strict=True):
        axes.stairs(values, edges, label=name, zorder=2, **LINES[name])
    middle = 0.5 * (edges[1:] + edges[:-1])
    mean = float((density[0] * middle).sum() * width)
    std = math.sqrt(float((density[0] * (middle - mean) ** 2).sum() * width))
    # A reference for fields that swing about zero; buoyancy between two walls is nothing like it.
    if std > 0 and abs(mean) < 0.5 * std:
        gaussian = np.exp(-0.5 * ((middle - mean) / std) ** 2) / (math.sqrt(2 * math.pi) * std)
        axes.plot(middle, gaussian, color=GRAY, linewidth=0.9, linestyle="-.", label="Gaussian", zorder=1)
    axes.set_yscale("log")
    axes.set_ylim(density[density > 0].min() / 2, density.max() * 8)
    axes.set_xlim(edges[0] - width, edges[-1] + width)


def reconstruction_figure(examples: Sequence[Example], spec: FieldSpec) -> Figure:
    """Draw data, decoded tokens and error: a row for each sample, a block for each field."""

    def draw(axes: Axes, row: int, values: Array, colors: str, norm: Normalize) -> None:
        draw_map(axes, values, spec, colors, norm)

    fields = []
    for channel, name in enumerate(spec.names):
        rows = []
        for position, time, reference, reconstruction, vrmse in examples:
            when = f"sample {position}" if math.isnan(time) else f"$t$ = {time:.4g}"
            error = f"VRMSE {vrmse[channel]:.3f}"
            rows.append(Comparison(reference[channel], reconstruction[channel], left=when, right=error))
        fields.append((field_label(name, spec), rows))
    titles = ("data", "decoded tokens", "error")
    return comparison_figure(fields, draw, spec, domain=spec.lengths, titles=titles, error_label="error")
