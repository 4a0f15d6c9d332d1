"""Time step and time of a run, both by integer counts."""

import math
from dataclasses import dataclass

from solvers.rayleigh_benard.config import RBCConfig

# Relative to the CFL number aimed at: the step is left alone in between. Wide, because a new step costs the
# factorization of all matrices, about seven steps, while the largest velocity of a turbulent flow flickers.
LOWER, UPPER = 0.7, 1.2
URGENT = 2.0  # from here on any smaller step is taken, however much smaller it has to be
COARSEST = 1.25  # largest loss accepted for a step that fits the running interval
MIN_DT = 1e-7


@dataclass
class StepClock:
    """Counts steps so that frames are exactly equidistant.

    Every interval between frames is divided into n equal steps, dt = snapshot_dt / n. Within an interval, j
    of n steps done, n may change to n' when j n' / n is an integer, so the position stays an exact fraction.
    n is rounded up to multiples of 2^k near n/16: the few values left repeat, change seldom and share
    divisors.

    Attributes:
        config: the run.
        n: steps an interval; chosen from `max_dt` when not given.
        j: steps done of the running interval, 0 <= j < n.
        frame: intervals done, which is the index of the frame at its start.
        iteration: steps done since the start of the run.
        changes: times n changed.
    """

    config: RBCConfig
    n: int = 0
    j: int = 0
    frame: int = 0
    iteration: int = 0
    changes: int = 0

    def __post_init__(self) -> None:
        """Begin with the largest step."""
        self.n = self.n or round_up(self._needed(self.config.max_dt))

    @property
    def dt(self) -> float:
        """Time step."""
        return self.config.snapshot_dt / self.n

    @property
    def time(self) -> float:
        """Time, from the counts."""
        return (self.frame + self.j / self.n) * self.config.snapshot_dt

    def advance(self) -> bool:
        """Count a step; True when a frame is due."""
        self.iteration += 1
        self.j += 1
        if self.j < self.n:
            return False
        self.j = 0
        self.frame += 1
        return True

    def adapt(self, rate: float) -> bool:
        """Choose n for the CFL frequency `rate` = max(|u|/dx + |w|/dz), unless it is near enough.

        Returns:
            False when the step needed is below `MIN_DT`, which only a run that blows up asks for.
        """
        limit = self.config.max_dt if rate <= 0 else min(self.config.max_dt, self.config.cfl / rate)
        if limit < MIN_DT:
            return False
        needed = self._needed(limit)
        load = self.dt / limit
        if LOWER <= load <= UPPER:
            return True
        if self.j == 0:
            self._change(round_up(needed))
            return True
        unit = self.n // math.gcd(self.j, self.n)
        fitting = -(-needed // unit) * unit
        if fitting <= COARSEST * needed or load > URGENT:
            self._change(fitting)
        return True

    def _needed(self, limit: float) -> int:
        """Fewest steps an interval that keep dt <= limit (1e-9 absorbs the rounding of the quotient)."""
        return max(1, math.ceil(self.config.snapshot_dt / limit - 1e-9))

    def _change(self, n: int) -> None:
        """Divide the interval into n steps from here on."""
        if n != self.n:
            self.j, self.n = self.j * n // self.n, n
            self.changes += 1


def round_up(n: int) -> int:
    """Next multiple of 2^k, with k such that 16 to 32 multiples make up n; n itself below 32."""
    unit = 1 << max(0, n.bit_length() - 5)
    return -(-n // unit) * unit
