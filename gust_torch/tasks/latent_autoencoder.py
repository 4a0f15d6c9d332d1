"""Lightning task that trains the latent autoencoder on grids, meshes or particles."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from gust_torch.data.graphs.datamodule import GraphDataModule
from gust_torch.metrics.errors import point_vrmse
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.tasks.model_task import ModelTask, per_field

if TYPE_CHECKING:
    from gust_torch.models.latent_autoencoder import Batch


class LatentAutoencoderTask(ModelTask):
    """Trains a `LatentAutoencoder` on the data module's batches: tensors (b, c, h, w) or graphs.

    Loss: mean squared error of the normalized values at the points of the samples. AdamW with a linear
    warm-up and a cosine to 1 % of `lr` at the end of the run.

    Args:
        lr: Peak learning rate.
        weight_decay: AdamW's decay of weights (not of biases and norms).
        warmup_steps: Steps of the linear warm-up, at most a tenth of the run.
        num_queries: Points of a sample, on average, at which a training step decodes; those of larger samples
            are drawn at random. Validation decodes all.
        **architecture: The arguments of `LatentAutoencoder`.
    """

    model: LatentAutoencoder

    def __init__(
        self,
        *,
        lr: float = 5e-4,
        weight_decay: float = 1e-4,
        warmup_steps: int = 200,
        num_queries: int = 2048,
        **architecture: Any,
    ) -> None:
        super().__init__(lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps)
        if num_queries < 1:
            raise ValueError(f"expected num_queries >= 1, got {num_queries}")
        self.save_hyperparameters()
        self.architecture = architecture
        self.num_queries = num_queries

    def configure_model(self) -> None:
        """Build the model for the data module's fields; resumed runs take statistics from the checkpoint."""
        if hasattr(self, "model"):
            return
        self.model = LatentAutoencoder(self.data.spec, **self.architecture)
        if self.trainer.training and isinstance(self.data, GraphDataModule):
            statistics = self.data.statistics()
            self.model.set_statistics(statistics.mean, statistics.std)
            self.model.unit.set(statistics.lower, statistics.upper)
        elif self.trainer.training:
            self.model.set_statistics(*self.data.statistics())

    def summary(self) -> str:
        """Tokens of a sample."""
        return "{} tokens of {} features a sample".format(*self.model.latent_shape)

    def next_command(self, checkpoint: str) -> str:
        """Cache its latents."""
        return (
            "python scripts/precompute_latent_cache.py --tasks TASK --splits train val "
            f"--cache-dir data/latent_cache --checkpoint {checkpoint}"
        )

    def training_step(self, batch: "Batch", batch_idx: int) -> Tensor:
        """Loss of a batch at random points of it."""
        points = self.model.points(batch)
        share = self.num_queries * points.num_samples / len(points.sample)
        queries = points.subset(share, self.draws())
        loss = self._loss(self.model(batch, queries), queries.values)
        self.log("train/loss", loss, prog_bar=True, batch_size=points.num_samples)
        return loss

    def validation_step(self, batch: "Batch", batch_idx: int) -> None:
        """Errors at all points of a batch."""
        batch, count = self.true_part(batch, len(batch) if isinstance(batch, Tensor) else batch.num_graphs)
        points = self.model.points(batch)
        estimate = self.model(batch, points)
        errors = point_vrmse(estimate, points.values, points.sample, points.num_samples).mean(0)
        self.means.add(per_field("val/vrmse", errors, self.model.spec.names), count)
        loss = self._loss(estimate, points.values)
        self.means.add({"val/loss": loss}, len(points.values) if count else 0)

    def _loss(self, estimate: Tensor, values: Tensor) -> Tensor:
        """Mean squared error (n, c) in units of the training data's standard deviations."""
        return ((estimate - values) / self.model.std).square().mean()
