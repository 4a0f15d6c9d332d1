"""The numbers of an analysis as plain values for ``metrics.json``, as arrays, and as a table for people."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gust_torch.analysis.passes import Analysis
from gust_torch.analysis.sums import ERRORS, Spectrum
from gust_torch.figures import transform_note
from gust_torch.metrics.bands import BAND_NAMES, band_edges, band_labels
from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.spec import FieldSpec
from gust_torch.tokenizer.usage import bit_rate

FORMAT_VERSION = 1

Json = dict[str, Any]


def summarize(analysis: Analysis) -> Json:
    """Every metric of an analysis as nested plain values; None where a number does not exist."""
    spec, sums, shells = analysis.spec, analysis.spectra, analysis.spectra.shells
    rate = bit_rate(analysis.usages, spec.num_channels, spec.grid)
    fields: dict[str, Json] = {}
    for channel, name in enumerate(spec.names):
        fields[name] = {
            **{error: analysis.errors.summary(error, channel) for error in ERRORS},
            **analysis.histogram.distances(channel),
            "spectral_error": _spectral_errors(shells, sums.field(channel)),
            "transform": transform_note(spec),
            "transform_code": None,
        }
        if (floor := analysis.frames.floor(channel, rate.entropy_coded)) is not None:
            ratio = fields[name]["vrmse"]["mean"] / floor["vrmse"]
            fields[name]["transform_code"] = {**floor, "tokens_over_code": ratio}
    spectra: Json = {}
    if sums.kinetic_source is not None:
        modes = "sine" if sums.kinetic_source == "vorticity" else "cosine"
        totals = _spectrum(shells, sums.kinetic_energy(), modes)
        spectra["kinetic_energy"] = {"from": sums.kinetic_source, **totals}
    if sums.vorticity is not None:
        spectra["enstrophy"] = _spectrum(shells, sums.field(sums.vorticity), "cosine")
    edges = band_edges(shells.k_forcing, shells.k_max)
    return {
        "format_version": FORMAT_VERSION,
        "num_samples": analysis.num_samples,
        "spec": spec.to_dict(),
        "fields": fields,
        "spectra": spectra,
        "bands": {
            "upper_wavenumbers": dict(zip(BAND_NAMES, edges, strict=True)),
            "forcing_wavenumber": shells.k_forcing,
            "forcing_wavenumber_known": spec.forcing_wavenumber is not None,
            "shell_width": shells.dk,
        },
        "tokens": {
            "tokens_per_sample": sum(math.prod(usage.scale) for usage in analysis.usages),
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
                for usage in analysis.usages
            ],
        },
    }


def _spectral_errors(shells: ShellSpectrum, spectrum: Spectrum) -> dict[str, float | None]:
    """Relative error of a mean spectrum in each band."""
    errors = shells.band_errors(*map(torch.from_numpy, (spectrum.reference, spectrum.reconstruction)))
    pairs = zip(BAND_NAMES, errors.tolist(), strict=True)
    return {name: error if math.isfinite(error) else None for name, error in pairs}


def _spectrum(shells: ShellSpectrum, spectrum: Spectrum, wall_modes: str) -> Json:
    """Totals over all shells (means over the domain) and the error by band."""
    return {
        "total_reference": float(spectrum.reference.sum()),
        "total_reconstruction": float(spectrum.reconstruction.sum()),
        "total_error": float(spectrum.error.sum()),
        "spectral_error": _spectral_errors(shells, spectrum),
        "transform": transform_note(shells.spec, wall_modes=wall_modes),
    }


def curves(analysis: Analysis) -> dict[str, NDArray[Any]]:
    """Shell spectra and histograms as arrays, to plot them again."""
    sums, names = analysis.spectra, analysis.spec.names
    spectra = {name: sums.field(channel) for channel, name in enumerate(names)}
    if sums.kinetic_source is not None:
        spectra["kinetic_energy"] = sums.kinetic_energy()
    arrays: dict[str, NDArray[Any]] = {}
    for name, spectrum in spectra.items():
        arrays |= {f"spectrum_{name}_{kind}": values for kind, values in spectrum._asdict().items()}
        arrays["k"] = arrays.pop(f"spectrum_{name}_k")
    for channel, name in enumerate(names):
        (reference, reconstruction), edges = map(np.asarray, analysis.histogram.coarse(channel))
        arrays[f"histogram_{name}_reference"] = reference
        arrays[f"histogram_{name}_reconstruction"] = reconstruction
        arrays[f"histogram_{name}_edges"] = edges
    return arrays


def describe(spec: FieldSpec, metrics: Json, seconds: float) -> list[str]:
    """Return a short table of the main numbers, for people, a line each."""

    def bands(errors: dict[str, float | None]) -> str:
        pairs = zip(band_labels(spec), errors.values(), strict=True)
        return ", ".join(f"{band} {error:.3g}" for band, error in pairs if error is not None)

    tokens, samples = metrics["tokens"], metrics["num_samples"]
    rate, entropy = tokens["bits_per_pixel"], tokens["bits_per_pixel_entropy_coded"]
    usage = [
        f"{'x'.join(map(str, u['scale']))} {u['perplexity_over_vocab_size']:.2f}" for u in tokens["scales"]
    ]
    rows = [
        ("samples", f"{samples}, {samples / seconds:.3g} a second"),
        ("bits per pixel", f"{rate:.4f} ({entropy:.4f} entropy coded)"),
        ("perplexity / K", ", ".join(usage)),
    ]
    for name, field in metrics["fields"].items():
        error, code = field["vrmse"], field["transform_code"]
        spread = f"+- {error['std']:.4g} from sample to sample, median {error['quantiles']['0.5']:.4g}"
        rows.append((f"{name}: VRMSE", f"{error['mean']:.4g} {spread}"))
        if code is not None:
            ratio = f"at the same entropy: tokens have {code['tokens_over_code']:.3f} of it"
            bound = f"Gaussian bound {code['vrmse_of_gaussian_bound']:.4g}"
            rows.append(("  transform code", f"{code['vrmse']:.4g} {ratio}; {bound}"))
        rows.append(("  spectral error", bands(field["spectral_error"])))
        distances = f"JS {field['js_divergence']:.3g} nats, TV {field['tv_distance']:.3g}"
        rows.append(("  distribution", f"{distances}, W1 {field['wasserstein1']:.3g}"))
    if "kinetic_energy" in metrics["spectra"]:
        rows.append(("kinetic energy:", ""))
        rows.append(("  spectral error", bands(metrics["spectra"]["kinetic_energy"]["spectral_error"])))
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {text}".rstrip() for label, text in rows]
