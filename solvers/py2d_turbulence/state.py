"""The state of a run between two steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class State:
    """What a run must remember between two steps; its arrays are made read-only.

    Attributes:
        omega_hat: (n, n/2 + 1) rfft2 of the vorticity, Nyquist row and column zero.
        advection_hat: (n, n/2 + 1) rfft2 of div(u omega) at the step before; zero, and not used, at step 0.
        step: number of steps taken. The time is step * dt, never a running sum.
    """

    omega_hat: Complex
    advection_hat: Complex
    step: int

    def __post_init__(self) -> None:
        for array in (self.omega_hat, self.advection_hat):
            array.setflags(write=False)

    @property
    def vorticity(self) -> NDArray[np.float64]:
        """The vorticity (n, n), indexed [x, y]."""
        size = self.omega_hat.shape[0]
        return np.fft.irfft2(self.omega_hat, s=(size, size))


def initial_state(omega: NDArray[np.floating]) -> State:
    """Return the state at step 0 of a vorticity field (n, n), without its mean and its Nyquist modes."""
    omega_hat = np.fft.rfft2(np.asarray(omega, dtype=np.float64))
    size = omega_hat.shape[0]
    omega_hat[size // 2, :] = 0.0
    omega_hat[:, size // 2] = 0.0
    omega_hat[0, 0] = 0.0  # the integral of a derivative: no mean vorticity on a periodic domain
    return State(omega_hat, np.zeros_like(omega_hat), 0)


def to_rows_of_kx(hat: Complex) -> Complex:
    """Return a contiguous copy [ky, kx] (n/2, n) of an rfft2 array (n, n/2 + 1), without ky = n/2."""
    return np.ascontiguousarray(hat[:, :-1].T)


def to_rfft2(modes: Complex) -> Complex:
    """Inverse of `to_rows_of_kx`; ky = n/2 is zero."""
    half, size = modes.shape
    hat = np.zeros((size, half + 1), dtype=np.complex128)
    hat[:, :-1] = modes.T
    return hat
