"""Figure of a spectrum: data, decoded tokens and their difference, with the ratios below."""

import textwrap
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gust_torch.analysis.curves import Curves, WavenumberScales, curves
from gust_torch.analysis.style import DIFFERENCE, GRAY, NOTE, RECONSTRUCTION, REFERENCE, STYLE
from gust_torch.analysis.sums import MeanSpectrum
from gust_torch.metrics.spectra import BAND_NAMES, band_edges

RATIO_LIMITS = (1e-3, 1e3)
WIDTH, HEIGHT = 5.0, 5.7
NOTE_CHARACTERS = 100


@dataclass(frozen=True)
class SpectrumPanel:
    """One spectrum and how to label it.

    Attributes:
        spectrum: Shell sums.
        label: Axis label, such as "kinetic energy spectrum $E(k)$".
        note: What the spectrum sums to and how it was taken, a line each, for below the figure.
        band_errors: Relative error per band, None where there is no such band.
        slopes: Power laws to draw for comparison: (exponent, label, "below" or "above" the forcing scale).
    """

    spectrum: MeanSpectrum
    label: str
    note: tuple[str, ...]
    band_errors: dict[str, float | None]
    slopes: tuple[tuple[float, str, str], ...] = ()


def spectrum_figure(panels: list[SpectrumPanel], scales: WavenumberScales) -> Figure:
    """Draw one column a spectrum: densities on top, ratios to the data below."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * len(panels), HEIGHT), layout="constrained")
        axes = figure.subplots(
            2, len(panels), sharex=True, squeeze=False, gridspec_kw={"height_ratios": [2.6, 1]}
        )
        for column, panel in enumerate(panels):
            drawn = curves(panel.spectrum, scales)
            _draw_spectrum(axes[0, column], panel, drawn, scales)
            _draw_ratio(axes[1, column], drawn, scales)
            axes[0, column].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        axes[1, 0].set_ylabel("ratio to data")
        figure.supxlabel(_note(panels, scales), fontsize=7, color=NOTE)
        return figure


def _note(panels: list[SpectrumPanel], scales: WavenumberScales) -> str:
    """Definitions below the figure, wrapped to its width."""
    lines = list(dict.fromkeys(line for panel in panels for line in panel.note))
    if scales.merged > 1:
        lines.append(f"From k = {scales.merged} Δk on, {scales.merged} shells are drawn as one.")
    lines.append("Percentages: relative spectral error of each band. Nondimensional units.")
    # Markup makes a line look longer than it is: lines with formulas are short, and not wrapped.
    wrapped = (line if "$" in line else textwrap.fill(line, NOTE_CHARACTERS * len(panels)) for line in lines)
    return "\n".join(wrapped)


def _draw_spectrum(axes: Axes, panel: SpectrumPanel, drawn: Curves, scales: WavenumberScales) -> None:
    """Upper panel."""
    axes.loglog(drawn.k, drawn.reference, label="data", **REFERENCE)
    axes.loglog(drawn.k, drawn.reconstruction, label="decoded tokens", **RECONSTRUCTION)
    axes.loglog(drawn.k, drawn.error, label="difference", **DIFFERENCE)
    top = _draw_slopes(axes, panel, drawn, scales)
    if drawn.k.size:
        # A reconstruction without its tail would otherwise stretch the axis far below the data.
        bottom = np.clip(drawn.reconstruction.min(), 0.1 * drawn.reference.min(), drawn.reference.min()) / 2
        top = 1.2 * max(top, drawn.reference.max(), drawn.reconstruction.max())
        # A ninth of the height stays free for the band errors.
        axes.set_ylim(bottom, bottom * (top / bottom) ** (9 / 8))
        axes.set_xlim(drawn.k[0] * 0.9, drawn.k[-1] * 1.1)
    _draw_bands(axes, panel, scales)
    axes.set_ylabel(panel.label)


def _draw_slopes(axes: Axes, panel: SpectrumPanel, drawn: Curves, scales: WavenumberScales) -> float:
    """Short power laws just above forced data, on the side of the forcing scale where theory has them.

    Returns:
        The highest value drawn; 0 if none.
    """
    top = 0.0
    for exponent, label, side in panel.slopes:
        if drawn.k.size < 4 or not scales.forcing_known:
            continue
        start, end = drawn.k[0], 0.8 * scales.k_forcing
        if side == "above":
            start, end = 1.5 * scales.k_forcing, 0.5 * scales.k_max
        if end < 2.0 * start:
            continue
        line = np.geomspace(start, end, 32)
        data = np.exp(np.interp(np.log(line), np.log(drawn.k), np.log(drawn.reference)))
        power = line**exponent
        power *= 1.8 * (data / power).max()
        axes.loglog(line, power, color=GRAY, linewidth=1.0)
        axes.annotate(label, (line[16], power[16]), (3, 3), textcoords="offset points", color=NOTE)
        top = max(top, 2.0 * float(power.max()))
    return top


def _draw_bands(axes: Axes, panel: SpectrumPanel, scales: WavenumberScales) -> None:
    """Edges of the bands, with each band's name and error at the top."""
    lower, high = axes.get_xlim()
    for name, upper in zip(BAND_NAMES, band_edges(scales.k_forcing, scales.k_max), strict=True):
        error = panel.band_errors[name]
        right = high if name == BAND_NAMES[-1] else min(upper, high)
        if error is not None and right > 1.2 * lower:
            axes.text(
                np.sqrt(lower * right), 0.985, f"{name}\n{_percent(error)}", ha="center", va="top",
                transform=axes.get_xaxis_transform(), fontsize=7, linespacing=1.3, color=NOTE,
            )  # fmt: skip
        lower = max(lower, upper)
    _mark_scales(axes, scales)


def _percent(error: float) -> str:
    """Band error as text, two digits."""
    percent = 100 * error
    if percent < 0.1:
        return "<0.1 %"
    return f"{percent:.1f} %" if percent < 10 else f"{min(percent, 9999):.0f} %"


def _mark_scales(axes: Axes, scales: WavenumberScales) -> None:
    """Vertical lines at the forcing scale and at the start of the small-scale band."""
    axes.axvline(scales.k_forcing, color=GRAY, linewidth=0.9, linestyle="-." if scales.forcing_known else ":")
    axes.axvline(band_edges(scales.k_forcing, scales.k_max)[1], color=GRAY, linewidth=0.7, linestyle=":")


def _draw_ratio(axes: Axes, drawn: Curves, scales: WavenumberScales) -> None:
    """Lower panel: reconstruction and difference over the data."""
    low, high = 0.03, 3.0
    for values, style in ((drawn.reconstruction, RECONSTRUCTION), (drawn.error, DIFFERENCE)):
        ratio = values / drawn.reference
        axes.loglog(drawn.k, ratio, **style)
        if ratio.size:
            low, high = min(low, ratio.min() / 1.5), max(high, ratio.max() * 1.5)
    axes.axhline(1.0, color=REFERENCE["color"], linewidth=0.8)
    axes.set_ylim(max(low, RATIO_LIMITS[0]), min(high, RATIO_LIMITS[1]))
    _mark_scales(axes, scales)
    axes.annotate(
        "$k_f$" if scales.forcing_known else r"$4\,\Delta k$", (scales.k_forcing, 0.0), (3, 4),
        xycoords=axes.get_xaxis_transform(), textcoords="offset points",
    )  # fmt: skip
    axes.set_xlabel("wavenumber $k$ (radians per unit length)")
