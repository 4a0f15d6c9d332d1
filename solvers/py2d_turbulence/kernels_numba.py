"""The same passes as `kernels_numpy`, each compiled into one loop (extra "fast").

Complex arrays come in as views of real pairs, which LLVM turns into vector code. No reassociation is allowed,
so results depend on neither the slab nor the thread.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.floating]  # (n, 2 m): real and imaginary parts in turn
Real = NDArray[np.floating]

SLAB_WIDTH = 16


def pairs(array: NDArray[np.complexfloating]) -> Pairs:
    """Return the view (n, 2 m) of real pairs of a contiguous complex array (n, m)."""
    return array.view(array.real.dtype)


_jit = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_jit
def _velocity_part(plus, minus, omega, inverse, ky, scale, start, stop, shift, first_kx):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        t = i + shift
        factor = inverse[i] * scale
        cx, cy = (i + first_kx) * factor, ky * factor
        real, imag = omega[2 * i], omega[2 * i + 1]
        plus[2 * t] = cx * real - cy * imag
        plus[2 * t + 1] = cx * imag + cy * real
        minus[2 * t] = -cx * real - cy * imag
        minus[2 * t + 1] = cx * imag - cy * real


@_jit
def velocity(plus: Pairs, minus: Pairs, omega: Pairs, inverse: Real, first_ky: int, scale: float) -> None:
    """See `kernels_numpy.velocity`."""
    size, padded = inverse.shape[1], plus.shape[1] // 2
    half, shift = size // 2, padded - size
    for j in range(omega.shape[0]):
        ky = float(first_ky + j)
        p, m, w, k = plus[j], minus[j], omega[j], inverse[j]
        _velocity_part(p, m, w, k, ky, scale, 0, half, 0, 0.0)
        p[2 * half : 2 * (padded - half + 1)] = 0.0
        m[2 * half : 2 * (padded - half + 1)] = 0.0
        _velocity_part(p, m, w, k, ky, scale, half + 1, size, shift, -float(size))


@_jit
def _nonlinear_part(plus, minus, out, ky, scale, start, stop, shift, first_kx):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        t = i + shift
        kx = i + first_kx
        d1, d2 = (ky * ky - kx * kx) * scale, 2.0 * kx * ky * scale
        pr, pi, mr, mi = plus[2 * t], plus[2 * t + 1], minus[2 * t], minus[2 * t + 1]
        out[2 * i] = d1 * (pi + mi) + d2 * (pr + mr)
        out[2 * i + 1] = d2 * (pi - mi) - d1 * (pr - mr)


@_jit
def nonlinear(plus: Pairs, minus: Pairs, out: Pairs, first_ky: int, scale: float) -> None:
    """See `kernels_numpy.nonlinear`."""
    size, padded = out.shape[1] // 2, plus.shape[1] // 2
    half, shift = size // 2, padded - size
    for j in range(out.shape[0]):
        ky = float(first_ky + j)
        _nonlinear_part(plus[j], minus[j], out[j], ky, scale, 0, half, 0, 0.0)
        _nonlinear_part(plus[j], minus[j], out[j], ky, scale, half + 1, size, shift, -float(size))


@_jit
def update(
    omega: Pairs,
    now: Pairs,
    before: Pairs,
    rate: Real,
    inverse: Real,
    first_ky: int,
    drag: float,
    nu: float,
    beta: float,
    a: float,
    b: float,
) -> None:
    """See `kernels_numpy.update`."""
    size = inverse.shape[1]
    for j in range(omega.shape[0]):
        ky = float(first_ky + j)
        w, n, o, r, k = omega[j], now[j], before[j], rate[j], inverse[j]
        for i in range(size):
            kx = float(i) if i < size // 2 else float(i - size)
            damping = drag + nu * (kx * kx + ky * ky)
            rossby = beta * kx * k[i]
            real, imag = w[2 * i], w[2 * i + 1]
            w[2 * i] = real + r[i] * (rossby * imag - damping * real - a * n[2 * i] - b * o[2 * i])
            w[2 * i + 1] = imag - r[i] * (
                rossby * real + damping * imag + a * n[2 * i + 1] + b * o[2 * i + 1]
            )


@_jit
def step_ab2cn(
    plus: Pairs,
    minus: Pairs,
    omega: Pairs,
    now: Pairs,
    before: Pairs,
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
    """See `kernels_numpy.step_ab2cn`."""
    nonlinear(plus, minus, now, first_ky, from_square)
    update(omega, now, before, rate, inverse, first_ky, drag, nu, beta, a, b)
    for mode in range(forcing.shape[0]):
        omega[int(forcing[mode, 0]), 2 * int(forcing[mode, 1])] += forcing[mode, 2]
    velocity(plus, minus, omega, inverse, first_ky, to_velocity)
