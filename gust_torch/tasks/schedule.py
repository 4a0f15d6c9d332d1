"""Optimizer and learning-rate schedule."""

import math
from typing import Any

import torch
from lightning import Trainer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

FINAL_SHARE = 0.01
LARGEST_WARMUP_SHARE = 0.1


def warmup_share(step: int, *, warmup: int, total: int) -> float:
    """Share of the peak learning rate at a step: a linear rise, then half a cosine down to 1 %.

    Args:
        step: Optimizer steps done, from 0.
        warmup: Steps of the rise; at most a tenth of `total` is used.
        total: Steps of the run.
    """
    warmup = min(warmup, int(LARGEST_WARMUP_SHARE * total))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return FINAL_SHARE + (1.0 - FINAL_SHARE) * 0.5 * (1.0 + math.cos(math.pi * progress))


def warmup_cosine(optimizer: Optimizer, *, warmup: int, total: int) -> LambdaLR:
    """Schedule by `warmup_share`, to be stepped after each optimizer step."""
    return LambdaLR(optimizer, lambda step: warmup_share(step, warmup=warmup, total=total))


def num_training_steps(trainer: Trainer) -> int:
    """Optimizer steps of the whole run.

    `trainer.estimated_stepping_batches` says the same, but builds the trainer's loader to count its batches,
    after which Lightning no longer restores the loader's place within an epoch from a checkpoint.

    Raises:
        ValueError: If the run has no end.
    """
    if trainer.max_epochs in (None, -1) and trainer.max_steps == -1:
        raise ValueError(
            "the learning-rate schedule needs an end: set --trainer.max_epochs or --trainer.max_steps"
        )
    if trainer.max_epochs in (None, -1):
        return trainer.max_steps
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    batches = len(datamodule.train_dataloader())
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)


def adamw_with_schedule(
    model: nn.Module,
    trainer: Trainer,
    *,
    lr: float,
    weight_decay: float,
    warmup_steps: int,
    betas: tuple[float, float] = (0.9, 0.999),
) -> dict[str, Any]:
    """Return what `configure_optimizers` returns: AdamW, weights decayed and vectors not, with
    `warmup_cosine`."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas)
    schedule = warmup_cosine(optimizer, warmup=warmup_steps, total=num_training_steps(trainer))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
