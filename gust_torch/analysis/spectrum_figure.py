"""Figures of spectra: data, decoded tokens and their difference, with the ratios below."""

import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from gust_torch.analysis.sums import Spectrum, SpectrumSums
from gust_torch.figures import BLACK, BLUE, GRAY, NOTE, STYLE, VERMILLION, field_label, transform_note
from gust_torch.metrics.bands import band_edges, band_labels
from gust_torch.metrics.spectra import ShellSpectrum

LINES: dict[str, dict[str, Any]] = {
    "data": {"color": BLACK, "linestyle": "-", "linewidth": 1.6},
    "decoded tokens": {"color": VERMILLION, "linestyle": "--", "linewidth": 1.6},
    "difference": {"color": BLUE, "linestyle": ":", "linewidth": 1.6},
}
# Kraichnan (1967): inverse energy cascade below the forcing wavenumber, direct enstrophy cascade above it.
KINETIC_SLOPES = ((-5 / 3, "$k^{-5/3}$"), (-3.0, "$k^{-3}$"))
ENSTROPHY_SLOPES = ((1 / 3, "$k^{1/3}$"), (-1.0, "$k^{-1}$"))
RATIO_LIMITS = (1e-3, 1e3)
WIDTH, HEIGHT = 5.0, 5.7
NOTE_CHARACTERS = 100


class Panel(NamedTuple):
    """One spectrum: axis label, lines below the figure, errors of the bands, power laws (exponent, label)."""

    spectrum: Spectrum
    label: str
    note: tuple[str, str]
    errors: Mapping[str, float | None]
    slopes: tuple[tuple[float, str], ...] = ()


def spectrum_figures(sums: SpectrumSums, metrics: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw kinetic energy, enstrophy, and half the square of all other fields; see `report.summarize`."""
    spec = sums.shells.spec
    panels: dict[str, list[Panel]] = {"tke": [], "enstrophy": [], "power": []}
    if kinetic := metrics["spectra"].get("kinetic_energy"):
        total = rf"$\sum E\,\Delta k = \langle|\mathbf{{u}}|^2\rangle/2$, from the {kinetic['from']}"
        note, errors = (total, kinetic["transform"]), kinetic["spectral_error"]
        panel = Panel(sums.kinetic_energy(), "kinetic energy spectrum $E(k)$", note, errors, KINETIC_SLOPES)
        panels["tke"].append(panel)
    for channel, name in enumerate(spec.names):
        spectrum, errors = sums.field(channel), metrics["fields"][name]["spectral_error"]
        if channel == sums.vorticity:
            note = (r"$\sum Z\,\Delta k = \langle\omega^2\rangle/2$", transform_note(spec))
            panel = Panel(spectrum, "enstrophy spectrum $Z(k)$", note, errors, ENSTROPHY_SLOPES)
            panels["enstrophy"].append(panel)
        elif channel not in sums.velocity:
            note = (r"$\sum P\,\Delta k$ is half the mean square", transform_note(spec))
            label = f"{field_label(name, spec)} spectrum $P(k)$"
            panels["power"].append(Panel(spectrum, label, note, errors))
    return {f"{name}_spectrum.png": _figure(own, sums.shells) for name, own in panels.items() if own}


def densities(spectrum: Spectrum, shells: ShellSpectrum) -> Spectrum:
    """Energies per wavenumber up to ``k_max``, without the mean and shells without modes or energy."""
    merged, last = _merged(shells), int(np.floor(shells.k_max / shells.dk + 1e-6))
    edges = np.concatenate([np.arange(1, merged), np.arange(merged, last + 2, merged)])
    if len(edges) < 2:
        return Spectrum(*(values[:0] for values in spectrum))
    widths = np.diff(edges)
    k, *energies = (np.add.reduceat(values[: edges[-1]], edges[:-1]) for values in spectrum)
    shown, width = energies[0] > 0, widths * shells.dk
    return Spectrum((k / widths)[shown], *(energy[shown] / width[shown] for energy in energies))


def _merged(shells: ShellSpectrum) -> int:
    """From this shell on so many are drawn as one, the ratio of the domain's sides.

    Modes along the short side alone lie that far apart, and single shells would draw a saw.
    """
    return max(1, round(max(shells.spec.lengths) / min(shells.spec.lengths)))


def _figure(panels: list[Panel], shells: ShellSpectrum) -> Figure:
    """One column a spectrum: densities on top, ratios to the data below."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * len(panels), HEIGHT), layout="constrained")
        axes = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=[2.6, 1])
        for (upper, lower), panel in zip(axes.T, panels, strict=True):
            drawn = densities(panel.spectrum, shells)
            _draw_spectrum(upper, panel, drawn, shells)
            _draw_ratio(lower, drawn, shells)
        axes[1, 0].set_ylabel("ratio to data")
        lines = list(dict.fromkeys(line for panel in panels for line in panel.note))
        if (merged := _merged(shells)) > 1:
            lines.append(f"From k = {merged} Δk on, {merged} shells are drawn as one.")
        lines.append("Percentages: relative spectral error of each band. Nondimensional units.")
        # Markup makes a line look longer than it is: lines with formulas are short, and not wrapped.
        wrap = NOTE_CHARACTERS * len(panels)
        wrapped = (line if "$" in line else textwrap.fill(line, wrap) for line in lines)
        figure.supxlabel("\n".join(wrapped), fontsize=7, color=NOTE)
        return figure


def _draw_spectrum(axes: Axes, panel: Panel, drawn: Spectrum, shells: ShellSpectrum) -> None:
    """Upper panel."""
    for (label, style), values in zip(LINES.items(), drawn[1:], strict=True):
        axes.loglog(drawn.k, values, label=label, **style)
    if drawn.k.size:
        top = _draw_slopes(axes, panel, drawn, shells)
        # A reconstruction without its tail would otherwise stretch the axis far below the data.
        bottom = np.clip(drawn.reconstruction.min(), 0.1 * drawn.reference.min(), drawn.reference.min()) / 2
        top = 1.2 * max(top, drawn.reference.max(), drawn.reconstruction.max())
        # A ninth of the height stays free for the band errors.
        axes.set_ylim(bottom, bottom * (top / bottom) ** (9 / 8))
        axes.set_xlim(drawn.k[0] * 0.9, drawn.k[-1] * 1.1)
    _draw_bands(axes, panel.errors, shells)
    axes.set_ylabel(panel.label)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _draw_slopes(axes: Axes, panel: Panel, drawn: Spectrum, shells: ShellSpectrum) -> float:
    """Short power laws just above forced data, where theory has them; returns the highest value, or 0."""
    top = 0.0
    if shells.spec.forcing_wavenumber is None or drawn.k.size < 4:
        return top
    ranges = (drawn.k[0], 0.8 * shells.k_forcing), (1.5 * shells.k_forcing, 0.5 * shells.k_max)
    for (exponent, label), (start, end) in zip(panel.slopes, ranges, strict=False):
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


def _draw_bands(axes: Axes, errors: Mapping[str, float | None], shells: ShellSpectrum) -> None:
    """Edges of the bands, with each band's name and error at the top."""
    lower, high = axes.get_xlim()
    edges = band_edges(shells.k_forcing, shells.k_max)
    for label, error, upper in zip(band_labels(shells.spec), errors.values(), edges, strict=True):
        right = high if upper > edges[1] else min(upper, high)
        if error is not None and right > 1.2 * lower:
            axes.text(
                np.sqrt(lower * right), 0.985, f"{label}\n{_percent(error)}", ha="center", va="top",
                transform=axes.get_xaxis_transform(), fontsize=7, linespacing=1.3, color=NOTE,
            )  # fmt: skip
        lower = max(lower, upper)
    _mark_scales(axes, shells)


def _percent(error: float) -> str:
    """Two digits, three from 100 on."""
    percent = 100 * error
    if percent < 10:
        return f"{percent:.1f} %" if percent >= 0.1 else "<0.1 %"
    return f"{float(f'{percent:.3g}'):,.0f} %" if percent < 1e6 else f"{percent:.1e} %"


def _mark_scales(axes: Axes, shells: ShellSpectrum) -> None:
    """Vertical lines at the forcing scale and at the start of the small-scale band."""
    forcing_style = ":" if shells.spec.forcing_wavenumber is None else "-."
    axes.axvline(shells.k_forcing, color=GRAY, linewidth=0.9, linestyle=forcing_style)
    small = band_edges(shells.k_forcing, shells.k_max)[1]
    axes.axvline(small, color=GRAY, linewidth=0.7, linestyle=":")


def _draw_ratio(axes: Axes, drawn: Spectrum, shells: ShellSpectrum) -> None:
    """Lower panel: reconstruction and difference over the data."""
    low, high = 0.03, 3.0
    for name, values in (("decoded tokens", drawn.reconstruction), ("difference", drawn.error)):
        ratio = values / drawn.reference
        axes.loglog(drawn.k, ratio, **LINES[name])
        low, high = min([low, *(ratio / 1.5)]), max([high, *(ratio * 1.5)])
    axes.axhline(1.0, color=BLACK, linewidth=0.8)
    axes.set_ylim(max(low, RATIO_LIMITS[0]), min(high, RATIO_LIMITS[1]))
    _mark_scales(axes, shells)
    forcing = r"$4\,\Delta k$" if shells.spec.forcing_wavenumber is None else "$k_f$"
    place = axes.get_xaxis_transform()
    axes.annotate(forcing, (shells.k_forcing, 0.0), (3, 4), xycoords=place, textcoords="offset points")
    axes.set_xlabel("wavenumber $k$ (radians per unit length)")
    # Labels at 1, 2, 5, 10, ... where there is not even a decade or two to label; between them none.
    if drawn.k.size and drawn.k[-1] < 50 * drawn.k[0]:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
