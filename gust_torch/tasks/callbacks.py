"""What happens beside the training: its bar, its stop by a signal, its figures."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from gust_torch.spec import FieldSpec
from gust_torch.tasks.checkpoints import TrainingCheckpoint
from gust_torch.tasks.model_task import num_training_steps
from gust_torch.tasks.resume import StoppedBySignal
from gust_torch.tasks.signals import Signals
from gust_torch.tasks.vqvae import VQVAETask
from solvers.common.progress import Progress

SHOWN = {"train/loss": "loss", "val/loss": "val loss", "val/vrmse": "val VRMSE"}
LARGEST_RATIO = 3.0


class Interruption(Callback):
    """Saves the last checkpoint and stops, at a whole step and on all processes, after a signal.

    Args:
        signals: Notes the signal.
        checkpoint: Saves; None where checkpoints are switched off.
    """

    def __init__(self, signals: Signals, checkpoint: TrainingCheckpoint | None) -> None:
        super().__init__()
        self.signals = signals
        self.checkpoint = checkpoint
        self.saved: Path | None = None
        self._first_step = 0
        self._loop: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave SIGTERM to `signals`: Lightning's handler meets a collective within whatever runs."""
        connector: Any = trainer._signal_connector
        connector._sigterm_notifier_fn = lambda number, frame: None
        self._loop = trainer.fit_loop.epoch_loop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is something to save."""
        self._first_step = trainer.global_step
        self.signals.ask = lambda: setattr(self._loop, "is_stopping", True)

    def on_validation_batch_start(self, trainer: Trainer, *arguments: Any) -> None:
        """Stop within a validation too, of a single process: others may have fewer batches."""
        if trainer.world_size == 1 and not trainer.sanity_checking:
            self._loop.stop_if_asked()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the validation is done; checkpoints, which are saved after this, say so."""
        if not trainer.sanity_checking:
            self._loop.place = "validation"

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save where the training stopped."""
        self.signals.ask = None
        is_stop = isinstance(exception, StoppedBySignal)
        if is_stop and self.checkpoint and trainer.global_step > self._first_step:
            self.saved = self.checkpoint.save_now(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is left to save."""
        self.signals.ask = None


class TrainingProgress(Callback):
    """One bar with ETA for the whole run on a terminal, a line every ten seconds elsewhere.

    Takes the place of Lightning's bar, which starts anew at each epoch and leaves log files empty.

    Args:
        enabled: Whether anything is shown.
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled
        self._progress: Progress | None = None
        self._step = 0
        self._validated = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at the step of the checkpoint, if there is one."""
        if self.enabled and trainer.is_global_zero:
            self._step = trainer.global_step
            total = num_training_steps(trainer)
            self._progress = Progress(total, description="training", initial=self._step)

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        """Count optimizer steps; read the metrics, which waits for the device, only where they are logged."""
        if self._progress is None or trainer.global_step == self._step:
            return
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        values = self._values(trainer) if trainer.global_step % every == 0 else {}
        self._progress.update(trainer.global_step - self._step, values)
        self._step = trainer.global_step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember of which step the values are."""
        if not trainer.sanity_checking:
            self._validated = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the final state."""
        if self._progress is not None:
            self._progress.update(0, self._values(trainer))
            self._progress.close()
            self._progress = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order."""
        self.on_train_end(trainer, pl_module)

    def _values(self, trainer: Trainer) -> dict[str, float]:
        """Newest values of the metrics that are shown; those of an earlier step say of which."""
        metrics = trainer.callback_metrics
        late = f" of step {self._validated}" if self._validated < trainer.global_step else ""
        return {
            f"{label}{late if name.startswith('val/') else ''}": float(metrics[name])
            for name, label in SHOWN.items()
            if name in metrics
        }


class ValidationFigures(Callback):
    """Draws reconstructions and code usage after each validation pass.

    W&B and TensorBoard get them as images; otherwise they are PNG files under `figures` of the log folder,
    those of the newest pass.

    Args:
        num_samples: Frames drawn, the first of the first validation batch.
    """

    def __init__(self, num_samples: int = 4) -> None:
        super().__init__()
        self.num_samples = num_samples

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and hand over to the loggers."""
        if trainer.sanity_checking or not trainer.loggers:
            return
        assert isinstance(pl_module, VQVAETask)
        model = pl_module.model
        x, x_hat = (part[: self.num_samples].float().cpu().numpy() for part in pl_module.examples)
        counts = [part.cpu().numpy() for part in pl_module.code_counts]
        figures = {
            "reconstructions": reconstruction_figure(x, x_hat, model.spec),
            "code_usage": usage_figure(counts, model.scales),
        }
        for name, figure in figures.items():
            figure.suptitle(f"{name.replace('_', ' ')} after {trainer.global_step} steps", fontsize=10)
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
            figure.savefig(folder / f"{name}.png", dpi=100)


def reconstruction_figure(x: np.ndarray, x_hat: np.ndarray, spec: FieldSpec) -> Figure:
    """Draw inputs (b, c, h, w) and their reconstructions, one pair of rows per channel."""
    num, channels = x.shape[:2]
    width, height = spec.lengths
    panel = 2.2 * min(LARGEST_RATIO, max(1 / LARGEST_RATIO, height / width)) + 0.35
    figure = Figure(figsize=(1.6 + 2.2 * num, 0.7 + panel * 2 * channels), layout="constrained")
    axes = figure.subplots(2 * channels, num, squeeze=False, sharex=True, sharey=True)
    for c, name in enumerate(spec.names):
        limit = float(np.abs(x[:, c]).max())
        signed = float(x[:, c].min()) < 0
        colors = {"cmap": "RdBu_r" if signed else "viridis", "vmin": -limit if signed else 0.0, "vmax": limit}
        rows = axes[2 * c : 2 * c + 2]
        for row, label, values in zip(rows, ("input", "decoded"), (x, x_hat), strict=True):
            for axis, frame in zip(row, values[:, c], strict=True):
                # The first array axis is x, drawn to the right.
                extent = (0.0, width, 0.0, height)
                image = axis.imshow(frame.T, origin="lower", extent=extent, aspect="auto", **colors)
            row[0].set_ylabel(f"{label}\ny")
        figure.colorbar(image, ax=rows, label=name)
    for axis in axes[-1]:
        axis.set_xlabel("x")
    return figure


def usage_figure(counts: list[np.ndarray], scales: tuple[tuple[int, int], ...]) -> Figure:
    """Share of each code, sorted, against its rank; one line per scale and a uniform one for comparison."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axis = figure.subplots()
    for count, (h, w) in zip(counts, scales, strict=True):
        share = np.sort(count)[::-1] / count.sum() * count.size
        axis.plot((np.arange(count.size) + 0.5) / count.size, share, label=f"{h}x{w}, {count.size} codes")
    axis.axhline(1.0, color="0.5", linestyle="--", linewidth=1, label="uniform")
    axis.set(xlabel="rank of code / codebook size", ylabel="use / uniform use", ylim=(0, None))
    axis.legend(title="token grid")
    return figure
