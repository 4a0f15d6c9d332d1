"""What the tasks share: one network, its optimizer, and its part of a checkpoint."""

import logging
from typing import Any

import torch
from lightning import LightningModule

from gust_torch.checkpoint import MODEL_KEY, model_state
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tasks.schedule import adamw_with_schedule

logger = logging.getLogger(__name__)


class ModelTask(LightningModule):
    """Trains `model` by AdamW, with a linear warm-up and a cosine to 1 % of `lr` at the end of the run.

    Attributes:
        model: The network, built by the task's `configure_model` for the data.
        lr: Peak learning rate.
        weight_decay: AdamW's decay of weights (not of biases and norms).
        warmup_steps: Steps of the linear warm-up, at most a tenth of the run.
        betas: AdamW's decay rates of the two moments.
    """

    model: VQVAE2d | LatentAutoencoder | LatentOperator

    def __init__(
        self, *, lr: float, weight_decay: float, warmup_steps: int, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.warmup_steps, self.betas = lr, weight_decay, warmup_steps, betas

    def summary(self) -> str:
        """Return what is trained on what, for the log; the number of parameters is said in front of it."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        """Say how large the model is, and let CUDA use TF32 for float32 products."""
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        logger.info("%s parameters, %s", f"{trained:,}", self.summary())

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, stepped once a step."""
        return adamw_with_schedule(
            self.model,
            self.trainer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup_steps,
            betas=self.betas,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `gust_torch.checkpoint.load_model` rebuilds the model from."""
        checkpoint[MODEL_KEY] = model_state(self.model)
