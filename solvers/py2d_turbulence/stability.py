"""How large a step may be, and what to tell the user about it."""

from __future__ import annotations

import math

from solvers.py2d_turbulence.config import SolverConfig

# The limit takes the fastest point of the flow for all of it. Flows held at 1.0 and blew up at 1.7 times it.
WARNING_FACTOR = 1.3
REFUSAL_FACTOR = 2.0
BETA_WARNING_FRACTION = 0.1


def step_limit(config: SolverConfig, speed: float) -> float:
    """Return the step up to which ab2cn damps every mode of a flow of that speed.

    Adams-Bashforth 2 makes a wave of frequency s grow at the rate s^4 dt^3 / 4. Sweeping gives the smallest
    scale, k = n/2 - 1, the frequency s = k max(|u| + |v|); viscosity and drag damp it at the rate
    nu k^2 + alpha. Beyond s dt = 1 the growth is that of a few steps, whatever the damping.

    Args:
        config: parameters.
        speed: max(|u| + |v|).
    """
    k = config.NX // 2 - 1
    frequency = k * speed
    if frequency == 0.0:
        return math.inf
    damping = config.nu * k**2 + config.alpha
    return min((4.0 * damping / frequency**4) ** (1.0 / 3.0), 1.0 / frequency)


def expected_speed(config: SolverConfig) -> float:
    """Estimate max(|u| + |v|) of the flow that the forcing will drive; 0 without forcing.

    The laminar flow has the speed U = sum of 1 / (alpha + nu k^2) over the forced waves. A turbulent one is
    slower: 2.6 sqrt(U / sqrt(k)) fits eight runs (Re 100 and 1000, alpha 0.02 to 0.5, k 2 to 8) within 30 %.
    """
    forced = [k for k in (config.fkx, config.fky) if k > 0]
    if not forced:
        return 0.0
    damping = [config.alpha + config.nu * k**2 for k in forced]
    laminar = sum(1.0 / rate for rate in damping)
    return min(laminar, 2.6 * math.sqrt(laminar / math.sqrt(max(forced))))


def check_step(config: SolverConfig, speed: float) -> list[str]:
    """Compare the step with what the initial flow bears and with what the later flow is expected to bear.

    Args:
        config: parameters.
        speed: max(|u| + |v|) of the initial field.

    Returns:
        Warnings, possibly none.

    Raises:
        ValueError: if the step exceeds twice the limit of the initial flow.
    """
    limit = step_limit(config, speed)
    if config.dt > REFUSAL_FACTOR * limit:
        raise ValueError(
            f"dt={config.dt:g} is too large for the initial flow: with max(|u|+|v|) = {speed:.3g} at "
            f"NX={config.NX} the smallest scales grow unless dt <= {limit:.2g}; set --dt "
            f"{round_down(limit):g} or lower --NX (--skip_stability_check to run anyway)"
        )
    warnings = []
    expected = expected_speed(config)
    later_limit = step_limit(config, max(speed, expected))
    if config.dt > WARNING_FACTOR * later_limit:
        warnings.append(
            f"dt={config.dt:g} may blow up: max(|u|+|v|) is {speed:.3g} now, about {expected:.2g} is "
            f"expected once the forcing has done its work, and that bears dt <= {later_limit:.2g}; "
            f"--dt {round_down(later_limit):g} is safer"
        )
    growth = 0.5 * config.beta**2 * config.dt
    if growth > BETA_WARNING_FRACTION * config.alpha:
        advice = "lower --dt" if config.alpha == 0.0 else f"--dt {_beta_step(config):g} or less is safer"
        warnings.append(
            f"beta={config.beta:g} is stepped by forward Euler: Rossby waves of K = 1 grow at the rate "
            f"beta^2 dt / 2 = {growth:.2g}, over a tenth of the drag alpha={config.alpha:g}; {advice}"
        )
    return warnings


def round_down(value: float) -> float:
    """Round down to 1, 2 or 5 times a power of ten: steps that divide round times."""
    power = 10.0 ** math.floor(math.log10(value))
    digit = max(d for d in (1, 2, 5) if d <= value / power * (1.0 + 1e-12))
    return float(f"{digit * power:.0e}")


def _beta_step(config: SolverConfig) -> float:
    return round_down(2.0 * BETA_WARNING_FRACTION * config.alpha / config.beta**2)
