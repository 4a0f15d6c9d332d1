"""The numbers of an analysis as plain values for ``metrics.json``."""

import math

import torch

from gust_torch.analysis.passes import Analysis
from gust_torch.analysis.sums import QUANTILES, ErrorSummary, MeanSpectrum
from gust_torch.figures import transform_note
from gust_torch.metrics.spectra import BAND_NAMES, band_edges, band_errors, band_labels
from gust_torch.models.token_model import TokenModel
from gust_torch.tokenizer.usage import scale_usage

FORMAT_VERSION = 1

Json = dict[str, object]


def summarize(analysis: Analysis, model: TokenModel) -> Json:
    """Every metric of an analysis.

    Distances between value distributions: Jensen-Shannon in nats (at most ln 2) and total variation on bins
    of a sixteenth of the training standard deviation, Wasserstein-1 in the field's units on the finest bins.

    Returns:
        Nested dictionaries of plain Python values; None where a number does not exist.
    """
    spec = analysis.spec
    spectra: Json = {}
    if analysis.spectra.kinetic_source is not None:
        spectrum = analysis.spectra.kinetic_energy()
        source = analysis.spectra.kinetic_source
        modes = "sine" if source == "vorticity" else "cosine"
        spectra["kinetic_energy"] = {"from": source, **_spectrum(analysis, spectrum, modes)}
    if analysis.spectra.vorticity is not None:
        spectrum = analysis.spectra.field(analysis.spectra.vorticity)
        spectra["enstrophy"] = _spectrum(analysis, spectrum, "cosine")
    return {
        "format_version": FORMAT_VERSION,
        "num_samples": analysis.num_samples,
        "spec": spec.to_dict(),
        "fields": {name: _field(analysis, channel) for channel, name in enumerate(spec.names)},
        "spectra": spectra,
        "bands": _bands(analysis),
        "tokens": _tokens(analysis, model),
    }


def spectral_errors(analysis: Analysis, spectrum: MeanSpectrum) -> dict[str, float | None]:
    """Relative error of a mean spectrum in each band."""
    shells = analysis.spectra.spectrum
    k, reference, estimate = map(torch.from_numpy, (spectrum.k, spectrum.reference, spectrum.reconstruction))
    errors = band_errors(reference, estimate, k, shells.k_forcing, k_max=shells.k_max).tolist()
    return {name: _finite(error) for name, error in zip(BAND_NAMES, errors, strict=True)}


def _field(analysis: Analysis, channel: int) -> Json:
    """Metrics of one field."""
    distances = analysis.histogram.distances(channel)
    return {
        "mse": _summary(analysis.errors.summary("mse", channel), analysis.num_samples),
        "vrmse": _summary(analysis.errors.summary("vrmse", channel), analysis.num_samples),
        "js_divergence": distances.js_divergence,
        "tv_distance": distances.total_variation,
        "histogram_bin_width": distances.bin_width,
        "wasserstein1": distances.wasserstein1,
        "wasserstein1_bin_width": distances.fine_bin_width,
        "spectral_error": spectral_errors(analysis, analysis.spectra.field(channel)),
        "transform": transform_note(analysis.spec),
        "transform_code": _floor(analysis, channel),
    }


def _floor(analysis: Analysis, channel: int) -> Json | None:
    """Compare with the transform code at the tokens' rate; None where there is none."""
    floor = analysis.floors.get(analysis.spec.names[channel])
    if floor is None:
        return None
    code, bound = floor.at_token_rate()
    return {
        "vrmse": code,
        "vrmse_of_gaussian_bound": bound,
        "tokens_over_code": analysis.errors.summary("vrmse", channel).mean / code,
        "bits_per_pixel": [point.bits_per_pixel for point in floor.code],
        "vrmse_at_these": [point.vrmse for point in floor.code],
        "gaussian_bound_at_these": [point.vrmse for point in floor.bound],
    }


def _summary(summary: ErrorSummary, num_samples: int) -> Json:
    """Return an error's distribution; the standard error takes the samples as independent."""
    return {
        "mean": summary.mean,
        "std": summary.std,
        "standard_error": summary.std / math.sqrt(num_samples),
        "quantiles": {f"{q:g}": value for q, value in zip(QUANTILES, summary.quantiles, strict=True)},
    }


def _spectrum(analysis: Analysis, spectrum: MeanSpectrum, wall_modes: str) -> Json:
    """Totals over all shells (means over the domain) and the error by band."""
    return {
        "total_reference": float(spectrum.reference.sum()),
        "total_reconstruction": float(spectrum.reconstruction.sum()),
        "total_error": float(spectrum.error.sum()),
        "spectral_error": spectral_errors(analysis, spectrum),
        "transform": transform_note(analysis.spec, wall_modes=wall_modes),
    }


def _bands(analysis: Analysis) -> Json:
    """Where the bands of the spectral errors lie."""
    shells = analysis.spectra.spectrum
    return {
        "upper_wavenumbers": dict(zip(BAND_NAMES, band_edges(shells.k_forcing, shells.k_max), strict=True)),
        "forcing_wavenumber": shells.k_forcing,
        "forcing_wavenumber_known": analysis.spec.forcing_wavenumber is not None,
        "shell_width": shells.dk,
    }


def _tokens(analysis: Analysis, model: TokenModel) -> Json:
    """Bits and code usage."""
    usages = scale_usage(model.scales, [counts.numpy() for counts in analysis.codes.counts])
    rate = analysis.rate
    return {
        "tokens_per_sample": sum(math.prod(scale) for scale in model.scales),
        "bits_per_pixel": rate.nominal,
        "bits_per_pixel_entropy_coded": rate.entropy_coded,
        "scales": [
            {
                "scale": list(usage.scale),
                "vocab_size": usage.codebook_size,
                "codes_in_use": usage.codes_in_use,
                "perplexity": usage.perplexity,
                "perplexity_over_vocab_size": usage.perplexity / usage.codebook_size,
                "entropy_bits": usage.entropy_bits,
            }
            for usage in usages
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def describe(analysis: Analysis, model: TokenModel, seconds: float) -> list[str]:
    """Return a short table of the main numbers, for people, a line each."""
    usages = scale_usage(model.scales, [counts.numpy() for counts in analysis.codes.counts])
    rate = analysis.rate
    rows = [
        ("samples", f"{analysis.num_samples}, {analysis.num_samples / seconds:.3g} a second"),
        ("bits per pixel", f"{rate.nominal:.4f} ({rate.entropy_coded:.4f} entropy coded)"),
        ("perplexity / K", ", ".join(f"{u.name} {u.perplexity / u.codebook_size:.2f}" for u in usages)),
    ]
    for channel, name in enumerate(analysis.spec.names):
        vrmse = analysis.errors.summary("vrmse", channel)
        distances = analysis.histogram.distances(channel)
        rows += [
            (
                f"{name}: VRMSE",
                f"{vrmse.mean:.4g} +- {vrmse.std:.4g} from sample to sample, median {vrmse.quantiles[1]:.4g}",
            ),
            *_floor_rows(analysis, channel),
            ("  spectral error", _band_text(analysis, analysis.spectra.field(channel))),
            (
                "  distribution",
                f"JS {distances.js_divergence:.3g} nats, TV {distances.total_variation:.3g}, "
                f"W1 {distances.wasserstein1:.3g}",
            ),
        ]
    if analysis.spectra.kinetic_source is not None:
        rows.append(("kinetic energy:", ""))
        rows.append(("  spectral error", _band_text(analysis, analysis.spectra.kinetic_energy())))
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {text}".rstrip() for label, text in rows]


def _floor_rows(analysis: Analysis, channel: int) -> list[tuple[str, str]]:
    """Return the line on the transform code, where there is one."""
    floor = analysis.floors.get(analysis.spec.names[channel])
    if floor is None:
        return []
    code, bound = floor.at_token_rate()
    ratio = analysis.errors.summary("vrmse", channel).mean / code
    text = f"{code:.4g} at the same entropy: tokens have {ratio:.3f} of it; Gaussian bound {bound:.4g}"
    return [("  transform code", text)]


def _band_text(analysis: Analysis, spectrum: MeanSpectrum) -> str:
    errors = zip(band_labels(analysis.spec), spectral_errors(analysis, spectrum).values(), strict=True)
    return ", ".join(f"{band} {error:.3g}" for band, error in errors if error is not None)
