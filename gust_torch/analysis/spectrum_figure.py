"""Figure of a spectrum: data, decoded tokens and their difference, with the ratios below."""

import textwrap
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from gust_torch.analysis.sums import MeanSpectrum
from gust_torch.figures import DIFFERENCE, GRAY, NOTE, RECONSTRUCTION, REFERENCE, STYLE
from gust_torch.metrics.spectra import BAND_NAMES, ShellSpectrum, band_edges, band_labels
from gust_torch.spec import FieldSpec

RATIO_LIMITS = (1e-3, 1e3)
WIDTH, HEIGHT = 5.0, 5.7
NOTE_CHARACTERS = 100


@dataclass(frozen=True)
class WavenumberScales:
    """Scales that all spectra of one data set share.

    Attributes:
        dk: Shell width.
        k_max: End of the complete shells, where plots end.
        k_forcing: End of the large-scale band.
        forcing_known: Whether ``k_forcing`` is the data's forcing, or a default.
        merged: The ratio of the domain's sides. From shell ``merged`` on, so many shells are drawn as one:
            modes along the short side alone lie that far apart, and single shells would draw a saw.
        band_labels: Names of the three bands.
    """

    dk: float
    k_max: float
    k_forcing: float
    forcing_known: bool
    merged: int
    band_labels: tuple[str, str, str]

    @classmethod
    def of(cls, shells: ShellSpectrum, spec: FieldSpec) -> "WavenumberScales":
        """Scales of a spectrum and its data."""
        return cls(
            dk=shells.dk,
            k_max=shells.k_max,
            k_forcing=shells.k_forcing,
            forcing_known=spec.forcing_wavenumber is not None,
            merged=max(1, round(max(spec.lengths) / min(spec.lengths))),
            band_labels=band_labels(spec),
        )


@dataclass(frozen=True)
class Curves:
    """Spectral densities to draw; shells without modes or energy are left out.

    Attributes:
        k: (n,) wavenumbers.
        reference: (n,) energy per wavenumber.
        reconstruction: (n,) the same of the reconstruction.
        error: (n,) the same of the difference.
    """

    k: NDArray[np.float64]
    reference: NDArray[np.float64]
    reconstruction: NDArray[np.float64]
    error: NDArray[np.float64]


def curves(spectrum: MeanSpectrum, scales: WavenumberScales) -> Curves:
    """Densities of a shell-summed spectrum up to ``k_max``, without the mean."""
    last = int(np.floor(scales.k_max / scales.dk + 1e-6))
    edges = np.concatenate([np.arange(1, scales.merged), np.arange(scales.merged, last + 2, scales.merged)])
    starts, widths = edges[:-1], np.diff(edges)

    def block_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.add.reduceat(values[: edges[-1]], starts) if len(starts) else values[:0]

    reference = block_sums(spectrum.reference)
    shown = reference > 0
    width = (widths * scales.dk)[shown]
    return Curves(
        k=(block_sums(spectrum.k) / widths)[shown],
        reference=reference[shown] / width,
        reconstruction=block_sums(spectrum.reconstruction)[shown] / width,
        error=block_sums(spectrum.error)[shown] / width,
    )


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
    edges = band_edges(scales.k_forcing, scales.k_max)
    for name, label, upper in zip(BAND_NAMES, scales.band_labels, edges, strict=True):
        error = panel.band_errors[name]
        right = high if name == BAND_NAMES[-1] else min(upper, high)
        if error is not None and right > 1.2 * lower:
            axes.text(
                np.sqrt(lower * right), 0.985, f"{label}\n{_percent(error)}", ha="center", va="top",
                transform=axes.get_xaxis_transform(), fontsize=7, linespacing=1.3, color=NOTE,
            )  # fmt: skip
        lower = max(lower, upper)
    _mark_scales(axes, scales)


def _percent(error: float) -> str:
    """Band error as text, two digits, three from 100 on."""
    percent = 100 * error
    if percent < 0.1:
        return "<0.1 %"
    if percent < 10:
        return f"{percent:.1f} %"
    return f"{float(f'{percent:.3g}'):,.0f} %" if percent < 1e6 else f"{percent:.1e} %"


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
    # Labels at 1, 2, 5, 10, ... where there is not even a decade or two to label; between them none.
    few = drawn.k.size > 0 and drawn.k[-1] < 50 * drawn.k[0]
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    if few:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
