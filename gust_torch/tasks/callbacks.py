"""Figures during training."""

from pathlib import Path

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from gust_torch.tasks.vqvae import VQVAETask

LARGEST_RATIO = 3.0


class ValidationFigures(Callback):
    """Draws reconstructions and code usage after each validation pass.

    W&B and TensorBoard get them as images; otherwise they are PNG files under `figures` of the log folder.

    Args:
        num_samples: Frames drawn, the first of the first validation batch.
    """

    def __init__(self, num_samples: int = 4) -> None:
        super().__init__()
        self.num_samples = num_samples
        self._batch: torch.Tensor | None = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: torch.Tensor,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first frames."""
        if batch_idx == 0:
            self._batch = batch[: self.num_samples]

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and hand over to the loggers."""
        if trainer.sanity_checking or self._batch is None:
            return
        assert isinstance(pl_module, VQVAETask)
        estimate = pl_module.model.reconstruct(self._batch)
        names = pl_module.model.spec.names
        figures = {
            "reconstructions": reconstruction_figure(
                self._batch.cpu().numpy(), estimate.cpu().numpy(), names
            ),
            "code_usage": usage_figure(
                [counts.cpu().numpy() for counts in pl_module.validation.code_counts()],
                pl_module.model.scales,
            ),
        }
        for name, figure in figures.items():
            log_figure(trainer.loggers, name, figure, trainer.global_step)


def log_figure(loggers: list[Logger], name: str, figure: Figure, step: int) -> None:
    """Hand a figure to each logger in the way that it takes figures."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"val/{name}", [figure], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(f"val/{name}", figure, step)
        elif logger.log_dir is not None:
            folder = Path(logger.log_dir) / "figures"
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{name}_{step:07d}.png", dpi=100)


def reconstruction_figure(x: np.ndarray, x_hat: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Input and reconstruction of each frame, one pair of rows per channel; both (b, c, h, w)."""
    num, channels, h, w = x.shape
    width, height = 2.4 * num, 2.4 * min(LARGEST_RATIO, max(1 / LARGEST_RATIO, w / h)) * 2 * channels
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(2 * channels, num, squeeze=False)
    for c, name in enumerate(names):
        limit = float(np.abs(x[:, c]).max())
        signed = float(x[:, c].min()) < 0
        for row, (label, values) in enumerate((("input", x), ("reconstruction", x_hat))):
            for i in range(num):
                axis = axes[2 * c + row, i]
                image = axis.imshow(  # the first array axis is x, drawn to the right
                    values[i, c].T,
                    origin="lower",
                    cmap="RdBu_r" if signed else "viridis",
                    vmin=-limit if signed else 0.0,
                    vmax=limit,
                )
                axis.set(xticks=[], yticks=[])
            axes[2 * c + row, 0].set_ylabel(f"{name}\n{label}")
        figure.colorbar(image, ax=axes[2 * c : 2 * c + 2, :], shrink=0.7)
    return figure


def usage_figure(counts: list[np.ndarray], scales: tuple[tuple[int, int], ...]) -> Figure:
    """Share of each code, sorted, against its rank; one line per scale and a uniform one for comparison."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axis = figure.subplots()
    for count, (h, w) in zip(counts, scales, strict=True):
        share = np.sort(count)[::-1] / max(1, count.sum()) * count.size
        axis.plot((np.arange(count.size) + 0.5) / count.size, share, label=f"{h}x{w}, {count.size} codes")
    axis.axhline(1.0, color="0.5", linestyle="--", linewidth=1, label="uniform")
    axis.set(xlabel="rank of code / codebook size", ylabel="use / uniform use", ylim=(0, None))
    axis.legend(title="token grid")
    return figure
