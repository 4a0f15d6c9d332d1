"""Lightning task that trains the latent autoencoder on grids, meshes or particles."""

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gust_torch.data.graphs.datamodule import GraphDataModule
from gust_torch.metrics.points import point_vrmse
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.tasks.model_task import ModelTask

if TYPE_CHECKING:
    from gust_torch.models.latent_autoencoder import Batch

ARCHITECTURE = tuple(inspect.signature(LatentAutoencoder).parameters)[1:]
"""The task's arguments that are the model's; a test holds their defaults equal."""


class LatentAutoencoderTask(ModelTask):
    """Trains a `LatentAutoencoder` on the data module's batches: tensors (b, c, h, w) or graphs.

    Loss: mean squared error of the normalized values at the points of the samples. AdamW with a linear
    warm-up and a cosine to 1 % of `lr` at the end of the run.

    Args:
        latent_len: Tokens of a sample.
        latent_dim: Features of a token.
        width: Features inside encoder and decoder.
        num_local_layers: Convolution blocks, or rounds of message passing, before the pooling.
        num_layers: Self-attention blocks on the tokens.
        num_decoder_layers: Rounds in which a query asks the tokens.
        num_heads: Attention heads.
        num_frequencies: Octaves of the coordinates' Fourier features.
        patch_size: Cells along each side of a grid's patch; graphs have none.
        lr: Peak learning rate.
        weight_decay: AdamW's decay of weights (not of biases and norms).
        warmup_steps: Steps of the linear warm-up, at most a tenth of the run.
        num_queries: Points of a sample, on average, at which a training step decodes; those of larger samples
            are drawn at random. Validation decodes all.
    """

    def __init__(
        self,
        *,
        latent_len: int = 128,
        latent_dim: int = 512,
        width: int = 256,
        num_local_layers: int = 2,
        num_layers: int = 4,
        num_decoder_layers: int = 2,
        num_heads: int = 8,
        num_frequencies: int = 6,
        patch_size: int = 4,
        lr: float = 5e-4,
        weight_decay: float = 1e-4,
        warmup_steps: int = 200,
        num_queries: int = 2048,
    ) -> None:
        super().__init__(lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps)
        if num_queries < 1:
            raise ValueError(f"expected num_queries >= 1, got {num_queries}")
        self.save_hyperparameters()
        self.num_queries = num_queries
        self.model: LatentAutoencoder

    def configure_model(self) -> None:
        """Build the model for the data module's fields; resumed runs take statistics from the checkpoint."""
        if hasattr(self, "model"):
            return
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.model = LatentAutoencoder(datamodule.spec, **{name: self.hparams[name] for name in ARCHITECTURE})
        if not self.trainer.training:
            return
        if isinstance(datamodule, GraphDataModule):
            statistics = datamodule.statistics()
            self.model.set_statistics(statistics.mean, statistics.std)
            self.model.unit.set(statistics.lower, statistics.upper)
        else:
            self.model.set_statistics(*datamodule.statistics())

    def summary(self) -> str:
        """Tokens of a sample."""
        return "{} tokens of {} features a sample".format(*self.model.latent_shape)

    def training_step(self, batch: "Batch", batch_idx: int) -> Tensor:
        """Loss of a batch at random points of it."""
        points = self.model.points(batch)
        share = self.num_queries * points.num_samples / len(points.sample)
        seed = self.global_step * self.trainer.world_size + self.global_rank
        queries = points.subset(share, torch.Generator().manual_seed(seed))
        loss = self._loss(self.model(batch, queries), queries.values)
        self.log("train/loss", loss, prog_bar=True, batch_size=points.num_samples)
        return loss

    def validation_step(self, batch: "Batch", batch_idx: int) -> None:
        """Errors at all points of a batch."""
        points = self.model.points(batch)
        estimate = self.model(batch, points)
        errors = point_vrmse(estimate, points.values, points.sample, points.num_samples).mean(0)
        metrics = {"val/loss": self._loss(estimate, points.values), "val/vrmse": errors.mean()}
        names = self.model.spec.names
        if len(names) > 1:
            metrics |= {f"val/vrmse_{name}": error for name, error in zip(names, errors, strict=True)}
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=points.num_samples)

    def _loss(self, estimate: Tensor, values: Tensor) -> Tensor:
        """Mean squared error (n, c) in units of the training data's standard deviations."""
        return ((estimate - values) / self.model.std).square().mean()
