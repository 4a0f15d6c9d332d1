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

SLAB_WIDTH = 32


def pairs(array: Complex) -> Complex:
    """Return the array in the form that the functions below take: itself."""
    return array


def velocity(
    plus: Complex, minus: Complex, omega: Complex, inverse: Real, first_ky: int, scale: float
) -> None:
    """Fill both tiles with the transform of u + iv = (kx + i ky) omega_hat / K^2, zero in the padding.

    Args:
        plus: (w, m), overwritten.
        minus: (w, m), overwritten; the mode (-kx, -ky) is -(kx + i ky) conj(omega_hat) / K^2.
        omega: (w, n) omega_hat.
        inverse: (w, n) 1/K^2; not used here, where it is part of a cached symbol.
        first_ky: ky of row 0.
        scale: factor on the result.
    """
    symbol, conjugate_symbol = _velocity_symbols(first_ky, *omega.shape, scale)
    size, padded = omega.shape[1], plus.shape[1]
    conjugate = np.conj(omega)
    for part, padded_part in _parts(size, padded):
        np.multiply(symbol[:, part], omega[:, part], out=plus[:, padded_part], casting="same_kind")
        np.multiply(
            conjugate_symbol[:, part], conjugate[:, part], out=minus[:, padded_part], casting="same_kind"
        )
    plus[:, size // 2 : padded - size // 2 + 1] = 0.0
    minus[:, size // 2 : padded - size // 2 + 1] = 0.0


def nonlinear(plus: Complex, minus: Complex, out: Complex, first_ky: int, scale: float) -> None:
    """Compute the transform of div(u omega) from that of W = (u + iv)^2.

    With D = (ky + i kx)^2, the symbol of (d/dx - i d/dy)^2, Basdevant's form
    (dxx - dyy)(uv) + dxy(v^2 - u^2) is N_hat(k) = (D W(k) - conj(D W(-k))) / 4i.

    Args:
        plus: (w, m) W at (kx, ky).
        minus: (w, m) W at (-kx, -ky).
        out: (w, n), overwritten; the Nyquist column is left alone.
        first_ky: ky of row 0.
        scale: factor on (D W(k) - conj(D W(-k))) / i.
    """
    difference, product = _advection_symbols(first_ky, *out.shape, scale)
    for part, padded_part in _parts(out.shape[1], plus.shape[1]):
        first, second = plus[:, padded_part], np.conj(minus[:, padded_part])
        result = np.multiply(first + second, product[:, part], out=out[:, part])
        first -= second  # the tile is overwritten next
        result += first * difference[:, part]


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
    """Advance omega_hat by one step of AB2/CN without forcing, as an increment to keep small terms exact.

    omega_hat += rate (-(drag + nu K^2) omega_hat + beta v_hat - a now - b before),
    v_hat = -i kx omega_hat / K^2

    Args:
        omega: (w, n) omega_hat, updated.
        now: (w, n) N_hat of this step.
        before: (w, n) N_hat of the step before.
        rate: (w, n) dt / (1 + dt drag + dt nu K^2 / 2).
        inverse: (w, n) 1/K^2; not used here, where it is part of a cached symbol.
        first_ky: ky of row 0.
        drag: alpha.
        nu: viscosity.
        beta: beta.
        a: weight of `now`: 3/2, or 1 in the first step.
        b: weight of `before`: -1/2, or 0 in the first step.
    """
    tendency = omega * _linear_symbol(first_ky, *omega.shape, drag, nu, beta)
    tendency -= a * now
    tendency -= b * before
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

    The arguments are those of `nonlinear` (scale `from_square`, result `now`), `update` and `velocity` (scale
    `to_velocity`); `forcing` is (number, 3): row, column and increment of the forced modes of the slab.
    """
    nonlinear(plus, minus, now, first_ky, from_square)
    update(omega, now, before, rate, inverse, first_ky, drag, nu, beta, a, b)
    for row, column, increment in forcing:
        omega[int(row), int(column)] += increment
    velocity(plus, minus, omega, inverse, first_ky, to_velocity)


def _parts(size: int, padded: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where 0 <= kx < n/2 and -n/2 < kx < 0 stand in an array of n and in one of m columns."""
    half = size // 2
    return (
        (slice(0, half), slice(0, half)),
        (slice(half + 1, size), slice(padded - half + 1, padded)),
    )


def _wavenumbers(first_ky: int, num_ky: int, size: int) -> tuple[Real, Real]:
    kx = wavenumbers_x(size)[None, :]
    return kx, np.arange(first_ky, first_ky + num_ky, dtype=np.float64)[:, None]


def _inverse_square(kx: Real, ky: Real) -> Real:
    k_squared = kx**2 + ky**2
    return np.divide(1.0, k_squared, out=np.zeros_like(k_squared), where=k_squared > 0.0)


@lru_cache(maxsize=256)
def _velocity_symbols(first_ky: int, num_ky: int, size: int, scale: float) -> tuple[Complex, Complex]:
    """Return (kx + i ky) / K^2 and its negative, times scale."""
    kx, ky = _wavenumbers(first_ky, num_ky, size)
    symbol = ((kx + 1j * ky) * _inverse_square(kx, ky) * scale).astype(np.complex128)
    return symbol, -symbol


@lru_cache(maxsize=256)
def _advection_symbols(first_ky: int, num_ky: int, size: int, scale: float) -> tuple[Complex, Complex]:
    """Return (ky^2 - kx^2) / i and 2 kx ky, times scale, as complex numbers: a cast would cost more."""
    kx, ky = _wavenumbers(first_ky, num_ky, size)
    difference: Complex = (ky**2 - kx**2) * (-1j * scale)
    product: Complex = (2.0 * kx * ky * scale).astype(np.complex128)
    return difference, product


@lru_cache(maxsize=256)
def _linear_symbol(first_ky: int, num_ky: int, size: int, drag: float, nu: float, beta: float) -> Complex:
    """Return -(drag + nu K^2 + i beta kx / K^2)."""
    kx, ky = _wavenumbers(first_ky, num_ky, size)
    return -(drag + nu * (kx**2 + ky**2) + 1j * beta * kx * _inverse_square(kx, ky))
