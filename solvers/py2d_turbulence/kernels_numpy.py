"""The passes over the modes of one slab, in plain numpy; `kernels_numba` holds the same ones compiled.

A slab is a range of ky, its arrays are indexed [ky, kx]. A tile (w, m) is the transform in x of the padded
field: `plus` holds the modes (kx, ky) at [ky - first_ky, kx], `minus` the modes (-kx, -ky) at the same place.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from solvers.py2d_turbulence.grid import wavenumbers_x

Complex = NDArray[np.complexfloating]
Real = NDArray[np.floating]

SLAB_WIDTH = 64


def pairs(array: Complex) -> Complex:
    """Returns the array in the form that the functions below take: itself."""
    return array


def square(rows: Complex) -> None:
    """Replaces z = u + iv by z^2 = u^2 - v^2 + 2i uv."""
    np.multiply(rows, rows, out=rows)


def velocity(
    plus: Complex, minus: Complex, omega: Complex, inverse: Real, first_ky: int, scale: float
) -> None:
    """Fills both tiles with the transform of u + iv = (kx + i ky) omega_hat / K^2, zero in the padding.

    Args:
        plus: (w, m), overwritten.
        minus: (w, m), overwritten; the mode (-kx, -ky) is -(kx + i ky) conj(omega_hat) / K^2.
        omega: (w, n) omega_hat.
        inverse: (w, n) 1/K^2.
        first_ky: ky of row 0.
        scale: factor on the result.
    """
    direction = _symbols(first_ky, *omega.shape)[0]
    size, padded = omega.shape[1], plus.shape[1]
    low, high = slice(0, size // 2), slice(size // 2 + 1, size)
    padded_high = slice(padded - size // 2 + 1, padded)
    stream = omega * inverse
    stream *= scale
    for tile, values in ((plus, direction * stream), (minus, -direction * np.conj(stream))):
        tile[:, low] = values[:, low]
        tile[:, size // 2 : padded - size // 2 + 1] = 0.0
        tile[:, padded_high] = values[:, high]


def nonlinear(plus: Complex, minus: Complex, out: Complex, first_ky: int, scale: float) -> None:
    """Computes the transform of div(u omega) from that of W = (u + iv)^2.

    With D = (ky + i kx)^2, the symbol of (d/dx - i d/dy)^2, Basdevant's form
    (dxx - dyy)(uv) + dxy(v^2 - u^2) is N_hat(k) = (D W(k) - conj(D W(-k))) / 4i, times 2.

    Args:
        plus: (w, m) W at (kx, ky).
        minus: (w, m) W at (-kx, -ky).
        out: (w, n), overwritten; the Nyquist column is left alone.
        first_ky: ky of row 0.
        scale: factor on (D W(k) - conj(D W(-k))) / i.
    """
    _, difference, product, _ = _symbols(first_ky, *out.shape)
    size, padded = out.shape[1], plus.shape[1]
    low, high = slice(0, size // 2), slice(size // 2 + 1, size)
    for part, padded_part in ((low, low), (high, slice(padded - size // 2 + 1, padded))):
        first, second = plus[:, padded_part], np.conj(minus[:, padded_part])
        result = (first - second) * (difference[:, part] * -1j)
        result += (first + second) * product[:, part]
        np.multiply(result, scale, out=out[:, part])


def update(
    omega: Complex,
    now: Complex,
    before: Complex,
    rate: Real,
    inverse: Real,
    first_ky: int,
    drag: float,
    nu: float,
    beta: float,
    a: float,
    b: float,
) -> None:
    """Advances omega_hat by one step of AB2/CN without forcing, as an increment to keep small terms exact.

    omega_hat += rate (-(drag + nu K^2) omega_hat + beta v_hat - a now - b before),
    v_hat = -i kx omega_hat / K^2

    Args:
        omega: (w, n) omega_hat, updated.
        now: (w, n) N_hat of this step.
        before: (w, n) N_hat of the step before.
        rate: (w, n) dt / (1 + dt drag + dt nu K^2 / 2).
        inverse: (w, n) 1/K^2.
        first_ky: ky of row 0.
        drag: alpha.
        nu: viscosity.
        beta: beta.
        a: weight of `now`: 3/2, or 1 in the first step.
        b: weight of `before`: -1/2, or 0 in the first step.
    """
    k_squared = _symbols(first_ky, *omega.shape)[3]
    tendency = omega * (-drag - nu * k_squared)
    tendency -= a * now
    tendency -= b * before
    if beta != 0.0:
        tendency -= omega * (1j * beta * wavenumbers_x(omega.shape[1]) * inverse)
    tendency *= rate
    omega += tendency


def step_ab2cn(
    plus: Complex,
    minus: Complex,
    omega: Complex,
    now: Complex,
    before: Complex,
    rate: Real,
    inverse: Real,
    forcing: Real,
    first_ky: int,
    drag: float,
    nu: float,
    beta: float,
    a: float,
    b: float,
    from_square: float,
    to_velocity: float,
) -> None:
    """One step of a slab, from the tiles of W to those of the new velocity.

    Args:
        plus: see `nonlinear` and `velocity`.
        minus: likewise.
        omega: see `update`.
        now: see `update`; computed here.
        before: see `update`.
        rate: see `update`.
        inverse: (w, n) 1/K^2.
        forcing: (number, 3) row, column and increment of the forced modes of the slab.
        first_ky: ky of row 0.
        drag: see `update`.
        nu: likewise.
        beta: likewise.
        a: likewise.
        b: likewise.
        from_square: scale of `nonlinear`.
        to_velocity: scale of `velocity`.
    """
    nonlinear(plus, minus, now, first_ky, from_square)
    update(omega, now, before, rate, inverse, first_ky, drag, nu, beta, a, b)
    for row, column, increment in forcing:
        omega[int(row), int(column)] += increment
    velocity(plus, minus, omega, inverse, first_ky, to_velocity)


@lru_cache(maxsize=256)
def _symbols(first_ky: int, num_ky: int, size: int) -> tuple[Complex, Real, Real, Real]:
    """Returns kx + i ky, ky^2 - kx^2, 2 kx ky and K^2 of a slab, each (num_ky, size)."""
    kx = wavenumbers_x(size)[None, :]
    ky = np.arange(first_ky, first_ky + num_ky, dtype=np.float64)[:, None]
    return kx + 1j * ky, ky**2 - kx**2, 2.0 * kx * ky, kx**2 + ky**2
