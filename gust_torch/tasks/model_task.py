"""What the tasks share: one network, its optimizer and schedule, its validation, its part of a checkpoint."""

import logging
import math
from functools import partial
from typing import Any, ClassVar

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from gust_torch.checkpoint import MODEL_KEY, model_state
from gust_torch.identity import IDENTITY_KEY, check_same, warn_of_scale
from gust_torch.models.distributed import all_reduce_sum
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.token_model import TokenModel
from gust_torch.tasks.validation import MeanSums, num_true_samples, take

logger = logging.getLogger(__name__)

FINAL_SHARE = 0.01
LARGEST_WARMUP_SHARE = 0.1
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
GRADIENTS_KEY = "accumulated_gradients"
SPEC_ENTRIES = ("fields", "components", "num_dims", "moving", "grid", "boundary", "lengths", "grid_y")


class ModelTask(LightningModule):
    """Trains `model` by AdamW, with a linear warm-up and a cosine to 1 % of `lr` at the end of the run.

    Attributes:
        model: The network, built by the task's `configure_model` for the data.
        lr: Peak learning rate.
        weight_decay: AdamW's decay of weights (not of biases and norms).
        warmup_steps: Steps of the linear warm-up, at most a tenth of the run.
        betas: AdamW's decay rates of the two moments.
        means: Means over the samples of a validation pass.
        monitor: The metric that tells the best checkpoint.
    """

    model: TokenModel | LatentAutoencoder | LatentOperator
    monitor: ClassVar[str] = "val/vrmse"

    def __init__(
        self, *, lr: float, weight_decay: float, warmup_steps: int, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.warmup_steps, self.betas = lr, weight_decay, warmup_steps, betas
        self.means = MeanSums()
        self._num_left = 0
        self._identity: dict[str, Any] | None = None
        self._gradients: dict[str, Tensor] = {}

    def summary(self) -> str:
        """Return what is trained on what, for the log; the number of parameters is said in front of it."""
        raise NotImplementedError

    def next_command(self, checkpoint: str) -> str:
        """Return the command that a user would run next with a checkpoint."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Refuse, by a ValueError, a precision that rounds weights, statistics or codebooks."""
        if self.trainer.precision not in PRECISIONS:
            raise ValueError(
                f"trainer.precision={self.trainer.precision} would round or mix the weights and codes, "
                f"which are float32; choose one of {', '.join(PRECISIONS)}"
            )

    @property
    def data(self) -> Any:
        """The trainer's data module."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """Say how large the model is, and let CUDA use TF32 for float32 products."""
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        logger.info("%s parameters, %s", f"{trained:,}", self.summary())

    def configure_optimizers(self) -> Any:
        """AdamW, weights decayed and vectors not; its schedule is stepped once a step."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas)
        share = partial(warmup_share, warmup=self.warmup_steps, total=num_training_steps(self.trainer))
        schedule = LambdaLR(optimizer, lambda step: share(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Continue within the batches of one optimizer step, where a checkpoint was taken there."""
        for name, parameter in self.named_parameters():
            if name in self._gradients:
                parameter.grad = self._gradients[name].to(parameter)
        self._gradients = {}

    def draws(self) -> torch.Generator:
        """Return the random numbers of this step and process."""
        seed = self.global_step * self.trainer.world_size + self.global_rank
        return torch.Generator().manual_seed(seed)

    def true_part(self, batch: Any, size: int) -> tuple[Any, int]:
        """Cut what another process validates too from a validation batch of `size` samples.

        Where a set does not divide among processes, Lightning gives the last ones samples twice.

        Returns:
            The batch with its samples that count, and their number. Where none counts it keeps one, so that
            all processes take part in what they do together.
        """
        count = max(0, min(size, self._num_left))
        self._num_left -= count
        return (batch if count == size else take(batch, max(1, count))), count

    def on_validation_epoch_start(self) -> None:
        """Start the sums of the pass."""
        self.means = MeanSums()
        self._num_left = num_true_samples(self.trainer.val_dataloaders)

    def on_validation_epoch_end(self) -> None:
        """Log what the means over all samples of all processes say."""
        for name, value in self.metrics(self.means.reduce(self.device)).items():
            self.log(name, value, sync_dist=True, prog_bar=name == self.monitor)

    def metrics(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what is logged of the means of a validation pass."""
        return means

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `gust_torch.checkpoint.load_model` rebuilds the model from, and what the data are."""
        checkpoint[MODEL_KEY] = model_state(self.model)
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        checkpoint[IDENTITY_KEY] = self.identity()
        if self.trainer.fit_loop._should_accumulate():  # a validation, whose best is saved, fell between
            checkpoint[GRADIENTS_KEY] = {
                name: all_reduce_sum(p.grad.detach().clone()) / self.trainer.world_size
                for name, p in self.named_parameters()
                if p.grad is not None
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse other data than the checkpoint's, unless `allow_changed` of the data module allows it."""
        is_fit = self.trainer.state.fn == TrainerFn.FITTING
        if is_fit:
            self._gradients = checkpoint.get(GRADIENTS_KEY, {})
        there = checkpoint.get(IDENTITY_KEY)
        if there is None:
            return
        now, what = self.identity(), f"the checkpoint {self.trainer.ckpt_path}"
        # Other data of the same kind may be validated.
        known = there if is_fit else {name: there[name] for name in SPEC_ENTRIES if name in there}
        check_same(known, now, what=what, allow_changed=bool(getattr(self.data, "allow_changed", False)))
        has_scales = {"std", "fields"} <= now.keys() & there.keys()
        if not is_fit and has_scales and len(there["std"]) == len(there["fields"]):
            warn_of_scale(there["std"], now["std"], there["fields"], source="the data")

    def identity(self) -> dict[str, Any]:
        """Return what the data module says of its data; empty where it says nothing."""
        if self._identity is None:
            self._identity = dict(self.data.identity()) if hasattr(self.data, "identity") else {}
        return self._identity


def per_field(name: str, errors: Tensor, fields: tuple[str, ...]) -> dict[str, Tensor]:
    """Name the mean of errors (c,) and, where there are several fields, the error of each."""
    each = zip(fields, errors, strict=True) if len(fields) > 1 else ()
    return {name: errors.mean(), **{f"{name}_{field}": error for field, error in each}}


def warmup_share(step: int, *, warmup: int, total: int) -> float:
    """Share of the peak learning rate at a step: a linear rise, then half a cosine down to 1 %, and that.

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


def num_training_steps(trainer: Trainer) -> int:
    """Optimizer steps of the whole run; a ValueError if it has no end.

    `trainer.estimated_stepping_batches` says the same, but builds the trainer's loader to count its batches,
    after which Lightning no longer restores the loader's place within an epoch from a checkpoint.
    """
    if trainer.max_epochs in (None, -1):
        if trainer.max_steps == -1:
            raise ValueError(
                "the learning-rate schedule needs an end: set --trainer.max_epochs or --trainer.max_steps"
            )
        return trainer.max_steps
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    batches = len(datamodule.train_dataloader())
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
