"""Metrics of fields: spectra, pointwise errors, value distributions. Pure torch, no I/O."""

from gust_torch.metrics.errors import mse, nrmse, vrmse
from gust_torch.metrics.histogram import (
    ValueDistances,
    ValueHistogram,
    js_divergence,
    total_variation,
    wasserstein1,
)
from gust_torch.metrics.spectra import BAND_NAMES, ShellSpectrum, band_edges, band_errors

__all__ = [
    "BAND_NAMES",
    "ShellSpectrum",
    "ValueDistances",
    "ValueHistogram",
    "band_edges",
    "band_errors",
    "js_divergence",
    "mse",
    "nrmse",
    "total_variation",
    "vrmse",
    "wasserstein1",
]
