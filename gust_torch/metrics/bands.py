"""Relative spectral error in three bands of wavenumbers."""

import math

import torch
from torch import Tensor

from gust_torch.spec import FieldSpec

BAND_NAMES = ("large", "inertial", "small")


def band_labels(spec: FieldSpec) -> tuple[str, str, str]:
    """Names of the bands for people: "inertial" only where the data name a forcing, below which it lies."""
    return "large", "middle" if spec.forcing_wavenumber is None else "inertial", "small"


def band_edges(k_forcing: float, k_max: float) -> tuple[float, float, float]:
    """Upper ends of the large, inertial and small band: k_f, 2/3 of ``k_max``, ``k_max``."""
    top = 2.0 * k_max / 3.0
    return min(k_forcing, top), top, k_max


def band_errors(reference: Tensor, estimate: Tensor, k: Tensor, k_forcing: float, k_max: float) -> Tensor:
    """Relative spectral error ``sum |E_est - E_ref| / sum E_ref`` in three bands of shells.

    Large scales ``0 < k < k_f``; inertial ``k_f <= k < 2/3 k_max``; small scales ``2/3 k_max <= k <= k_max``,
    the top third. The mean (k = 0) and the corners beyond ``k_max`` belong to no band. A band wholly lost
    scores 1.

    Args:
        reference: Shell spectra ``(..., n_shells)``.
        estimate: Shell spectra of the same shape.
        k: ``(n_shells,)`` shell wavenumbers, equally spaced from 0.
        k_forcing: Forcing wavenumber k_f.
        k_max: Isotropic limit of the grid.

    Returns:
        ``(..., 3)``; NaN for a band without shells (the grid is too small for it).
    """
    # Round-off in k must not move a shell to the other side of an edge.
    slack = 1e-3 * float(k[1])
    large_end, inertial_end, small_end = (edge - slack for edge in band_edges(k_forcing, k_max))
    bands = (
        (k > slack) & (k < large_end),
        (k > slack) & (k >= large_end) & (k < inertial_end),
        (k > slack) & (k >= inertial_end) & (k <= small_end + 2 * slack),
    )
    difference = (estimate - reference).abs()
    floor = torch.finfo(reference.dtype).tiny
    errors = []
    for inside in bands:
        error = difference[..., inside].sum(-1) / reference[..., inside].sum(-1).clamp_min(floor)
        errors.append(error if bool(inside.any()) else torch.full_like(error, math.nan))
    return torch.stack(errors, dim=-1)
