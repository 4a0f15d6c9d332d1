"""Write an analysis: four or more figures, ``metrics.json`` and the plotted curves."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from gust_torch.analysis.floor import Floor, rate_distortion_figure
from gust_torch.analysis.histogram_figure import histogram_figure
from gust_torch.analysis.passes import Analysis, Example
from gust_torch.analysis.report import spectral_errors
from gust_torch.analysis.spectrum_figure import SpectrumPanel, WavenumberScales, spectrum_figure
from gust_torch.analysis.sums import MeanSpectrum
from gust_torch.figures import (
    Array,
    Comparison,
    Looks,
    axis_names,
    comparison_figure,
    draw_map,
    field_label,
    length_ticks,
    panel_size,
    save_figures,
    transform_note,
)
from gust_torch.metrics.transform_coding import RatePoint
from gust_torch.spec import FieldSpec
from solvers.common.files import written_aside

# Kraichnan (1967): inverse energy cascade above the forcing scale, direct enstrophy cascade below it.
KINETIC_SLOPES = ((-5 / 3, "$k^{-5/3}$", "below"), (-3.0, "$k^{-3}$", "above"))
ENSTROPHY_SLOPES = ((1 / 3, "$k^{1/3}$", "below"), (-1.0, "$k^{-1}$", "above"))


def write_analysis(analysis: Analysis, metrics: Mapping[str, object], output_dir: Path) -> list[Path]:
    """Write every figure, then ``curves.npz``, then ``metrics.json``; each replaces an older one at once.

    Args:
        analysis: What the pass left.
        metrics: The whole content of ``metrics.json``: ``report.summarize`` and where it came from.
        output_dir: Created if missing.

    Returns:
        The files written.
    """
    scales = WavenumberScales.of(analysis.spectra.spectrum, analysis.spec)
    figures = {name: spectrum_figure(panels, scales) for name, panels in spectrum_panels(analysis).items()}
    if analysis.floors:
        figures["rate_distortion.png"] = rate_distortion_figure(token_points(analysis))
    figures["pixel_histogram.png"] = histogram_figure(analysis.histogram, analysis.spec)
    figures["reconstructions.png"] = reconstruction_figure(analysis.examples, analysis.spec)
    written = save_figures(figures, metrics, output_dir)
    return [*written, _write_curves(analysis, metrics, output_dir), write_json(metrics, output_dir)]


def token_points(analysis: Analysis) -> dict[str, tuple[Floor, RatePoint]]:
    """Return curves and the tokens' point of each field that has them."""
    points = {}
    for channel, name in enumerate(analysis.spec.names):
        if name in analysis.floors:
            error = analysis.errors.summary("vrmse", channel).mean
            points[name] = analysis.floors[name], RatePoint(analysis.rate.entropy_coded, error)
    return points


def spectrum_panels(analysis: Analysis) -> dict[str, list[SpectrumPanel]]:
    """Panels of each file: flow spectra where the flow is there, variance spectra of all other fields."""
    spec, sums = analysis.spec, analysis.spectra
    files: dict[str, list[SpectrumPanel]] = {}
    if sums.kinetic_source is not None:
        modes = "sine" if sums.kinetic_source == "vorticity" else "cosine"
        files["tke_spectrum.png"] = [
            _panel(
                analysis,
                sums.kinetic_energy(),
                "kinetic energy spectrum $E(k)$",
                (
                    rf"$\sum E\,\Delta k = \langle|\mathbf{{u}}|^2\rangle/2$, from the {sums.kinetic_source}",
                    transform_note(spec, wall_modes=modes),
                ),
                KINETIC_SLOPES,
            )
        ]
    if sums.vorticity is not None:
        note = (r"$\sum Z\,\Delta k = \langle\omega^2\rangle/2$", transform_note(spec))
        spectrum = sums.field(sums.vorticity)
        panel = _panel(analysis, spectrum, "enstrophy spectrum $Z(k)$", note, ENSTROPHY_SLOPES)
        files["enstrophy_spectrum.png"] = [panel]
    note = (r"$\sum P\,\Delta k$ is half the mean square", transform_note(spec))
    others = [
        _panel(analysis, sums.field(channel), f"{field_label(name, spec).text} spectrum $P(k)$", note)
        for channel, name in enumerate(spec.names)
        if channel != sums.vorticity and channel not in (sums.velocity or ())
    ]
    if others:
        files["power_spectrum.png"] = others
    return files


def _panel(
    analysis: Analysis,
    spectrum: MeanSpectrum,
    label: str,
    note: tuple[str, ...],
    slopes: tuple[tuple[float, str, str], ...] = (),
) -> SpectrumPanel:
    return SpectrumPanel(spectrum, label, note, spectral_errors(analysis, spectrum), slopes)


def reconstruction_figure(examples: Sequence[Example], spec: FieldSpec) -> Figure:
    """Draw data, decoded tokens and error: a row for each sample, a block for each field."""

    def draw(axes: Axes, row: Comparison, values: Array, colors: str, norm: Normalize) -> None:
        draw_map(axes, values, spec, colors, norm)

    fields = [
        (
            field_label(name, spec).text,
            [
                Comparison(
                    example.reference[channel],
                    example.reconstruction[channel],
                    first=_when(example),
                    last=f"VRMSE {example.vrmse[channel]:.3f}",
                )
                for example in examples
            ],
        )
        for channel, name in enumerate(spec.names)
    ]
    x, y = axis_names(spec)
    looks = Looks(
        draw=draw,
        panel=panel_size(*spec.lengths),
        axis_labels=(f"${x}$", f"${y}$"),
        ticks=lambda axes: length_ticks(axes, spec.lengths),
        titles=("data", "decoded tokens", "error"),
        error_label="error",
    )
    return comparison_figure(fields, looks)


def _when(example: Example) -> str:
    return f"sample {example.position}" if math.isnan(example.time) else f"$t$ = {example.time:.4g}"


def _write_curves(analysis: Analysis, metrics: Mapping[str, object], output_dir: Path) -> Path:
    """Shell spectra and histograms as arrays, to plot them again; opens with ``allow_pickle=False``."""
    sums = analysis.spectra
    spectra = {name: sums.field(channel) for channel, name in enumerate(analysis.spec.names)}
    if sums.kinetic_source is not None:
        spectra["kinetic_energy"] = sums.kinetic_energy()
    arrays: dict[str, Any] = {"k": sums.spectrum.k.double().cpu().numpy()}
    for name, spectrum in spectra.items():
        arrays[f"spectrum_{name}_reference"] = spectrum.reference
        arrays[f"spectrum_{name}_reconstruction"] = spectrum.reconstruction
        arrays[f"spectrum_{name}_error"] = spectrum.error
    for channel, name in enumerate(analysis.spec.names):
        counts, edges = analysis.histogram.coarse(channel)
        arrays[f"histogram_{name}_reference"], arrays[f"histogram_{name}_reconstruction"] = counts.numpy()
        arrays[f"histogram_{name}_edges"] = edges.numpy()
    path = output_dir / "curves.npz"
    with written_aside(path) as file:
        np.savez(file, metrics_json=np.array(json.dumps(metrics)), **arrays)
    return path


def write_json(metrics: Mapping[str, object], output_dir: Path) -> Path:
    """Write ``metrics.json``, beside its name first."""
    path = output_dir / "metrics.json"
    with written_aside(path) as file:
        file.write((json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
    return path
