"""Progress of a training run."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from gust_torch.tasks.schedule import num_training_steps
from solvers.common.progress import Progress

SHOWN = {"train/loss": "loss", "val/loss": "val loss", "val/vrmse": "val VRMSE"}


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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at the step of the checkpoint, if there is one."""
        if self.enabled and trainer.is_global_zero:
            self._step = trainer.global_step
            total = num_training_steps(trainer)
            self._progress = Progress(total, description="training", initial=self._step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count optimizer steps; read the metrics, which waits for the device, only where they are logged."""
        if self._progress is None or trainer.global_step == self._step:
            return
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        values = shown_metrics(trainer) if trainer.global_step % every == 0 else {}
        self._progress.update(trainer.global_step - self._step, values)
        self._step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the final state."""
        if self._progress is not None:
            self._progress.update(0, shown_metrics(trainer))
            self._progress.close()
            self._progress = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order."""
        self.on_train_end(trainer, pl_module)


def shown_metrics(trainer: Trainer) -> dict[str, float]:
    """Newest values of the metrics that are shown, by their labels."""
    metrics = trainer.callback_metrics
    return {label: float(metrics[name]) for name, label in SHOWN.items() if name in metrics}
