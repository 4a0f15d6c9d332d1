"""Learning-rate schedule."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

FINAL_SHARE = 0.01
LARGEST_WARMUP_SHARE = 0.1


def warmup_share(step: int, *, warmup: int, total: int) -> float:
    """Share of the peak learning rate at a step: a linear rise, then half a cosine down to 1 %.

    Args:
        step: Optimiser steps done, from 0.
        warmup: Steps of the rise; at most a tenth of `total` is used.
        total: Steps of the run.
    """
    warmup = min(warmup, int(LARGEST_WARMUP_SHARE * total))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return FINAL_SHARE + (1.0 - FINAL_SHARE) * 0.5 * (1.0 + math.cos(math.pi * progress))


def warmup_cosine(optimizer: Optimizer, *, warmup: int, total: int) -> LambdaLR:
    """Schedule by `warmup_share`, to be stepped after each optimiser step."""
    return LambdaLR(optimizer, lambda step: warmup_share(step, warmup=warmup, total=total))
