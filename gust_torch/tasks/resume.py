"""Lightning's training loops, resumed exactly from every checkpoint.

Lightning guesses from its counters how far the epoch of a checkpoint had come, and is wrong where `max_steps`
is set, where the epoch's last batch was done, and where a validation fell due. These loops write it down.
"""

from typing import Any, Literal

import torch
from lightning import Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from gust_torch.models.distributed import all_reduce_sum

Place = Literal["step", "validation", "between"]
"""Where a checkpoint was taken: behind the step of a batch, behind the validation that followed it, or with
nothing of the batch left to do."""


class StoppedBySignal(Exception):
    """Ends a training at a whole step, on all processes at the same one."""


class ExactEpochLoop(_TrainingEpochLoop):
    """The batches of an epoch.

    Attributes:
        place: Where in a batch's turn the training is.
        is_stopping: Whether this process was asked to stop; `StoppedBySignal` is raised before the next step.
        is_behind_step: Whether the rest of a batch's turn is to be done first: its validation, if one is due.
    """

    def __init__(self, trainer: Trainer, min_steps: int | None = None, max_steps: int = -1) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self.place: Place = "between"
        self.is_stopping = False
        self.is_behind_step = False
        self._loaded_place: Place | None = None

    def settle(self, *, is_epoch_over: bool) -> None:
        """Set the counters of a checkpoint to a batch that is done, and note what is left of its turn."""
        current: Any = self.batch_progress.current
        total: Any = self.batch_progress.total
        # Without a place, in Lightning's own checkpoints: it counts a batch behind the hook that saves.
        guess: Place = "validation" if current.completed == current.processed else "step"
        for tracker in (total, current):
            tracker.ready = tracker.started = tracker.completed = tracker.processed
        self.place = self._loaded_place or guess
        self.is_behind_step = not is_epoch_over and self.place != "between" and current.ready > 0

    @property
    def done(self) -> bool:
        """Whether the epoch is over."""
        return not self.is_behind_step and super().done

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Begin, or continue where the counters say; from here on nothing differs from a run in one go."""
        super().on_run_start(data_fetcher)
        self.restarting = False

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on a batch, unless that is done already and only the rest of its turn is left."""
        if self.is_behind_step:
            self.is_behind_step = False
            self._skip_next_val = self.place == "validation"
            return
        self.stop_if_asked()
        self.place = "step"
        super().advance(data_fetcher)

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Validate where it is due."""
        super().on_advance_end(data_fetcher)
        self.place = "between"

    def stop_if_asked(self) -> None:
        """Raise `StoppedBySignal` on all processes if one of them was asked to stop.

        Not within the batches of one optimizer step: what is accumulated of its gradient would be lost.
        """
        if self.batch_progress.current.ready > 0 and self._should_accumulate():
            return
        asked = torch.tensor([float(self.is_stopping)], device=self.trainer.strategy.root_device)
        if float(all_reduce_sum(asked)) > 0:
            raise StoppedBySignal

    def _broadcast_sigterm_tensor(self) -> None:
        """Do nothing: `stop_if_asked` takes its place."""

    def on_save_checkpoint(self) -> dict[str, Any]:
        """Write down the place."""
        return {**super().on_save_checkpoint(), "place": self.place}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Read the place; checkpoints of older versions have none."""
        super().on_load_checkpoint(state_dict)
        self._loaded_place = state_dict.get("place")


class ExactFitLoop(_FitLoop):
    """The epochs. Counters of a checkpoint are brought to one of two states: an epoch is over, or so many of
    its batches are done."""

    epoch_loop: ExactEpochLoop

    @classmethod
    def install(cls, trainer: Trainer) -> "ExactFitLoop":
        """Give a trainer this loop in place of Lightning's."""
        theirs = trainer.fit_loop
        loop = cls(trainer, min_epochs=theirs.min_epochs, max_epochs=theirs.max_epochs)
        loop.epoch_loop = ExactEpochLoop(trainer, theirs.epoch_loop.min_steps, theirs.epoch_loop.max_steps)
        trainer.fit_loop = loop
        return loop

    @property
    def restarting(self) -> bool:
        """Whether the state was loaded, and is within an epoch."""
        return self._restarting

    @restarting.setter
    def restarting(self, restarting: bool) -> None:
        current: Any = self.epoch_progress.current
        is_within = current.started != current.processed
        _Loop.restarting.fset(self, restarting and is_within)  # type: ignore[attr-defined]

    @property
    def done(self) -> bool:
        """Whether the training is over, all turns included."""
        return not self.epoch_loop.is_behind_step and super().done

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Load the counters of a checkpoint and bring them to one of the two states."""
        super().load_state_dict(state_dict, prefix)
        current: Any = self.epoch_progress.current
        total: Any = self.epoch_progress.total
        batches = self.epoch_loop.batch_progress
        is_over = current.processed == current.started
        # A run that ends within an epoch, at `max_steps`, closes it as if it were whole.
        is_cut = is_over and batches.current.ready > 0 and not batches.is_last_batch
        num_done = current.processed - is_cut
        for tracker in (current, total):
            tracker.processed = tracker.completed = num_done
            tracker.ready = tracker.started = num_done + (is_cut or not is_over)
        self.epoch_loop.settle(is_epoch_over=is_over)
        self.restarting = True
