"""The processes of a call: one plans and tells the others, all encode."""

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer

from gust_torch.precompute.options import Compute

Value = TypeVar("Value")

POLL_SECONDS = 0.05
NO_SCRIPT = ("spawn", "fork", "notebook")


class Interrupted(BaseException):
    """Ctrl-C, under a name that Lightning lets through (it ends the process upon KeyboardInterrupt)."""


class PlainSigterm(Callback):
    """Gives SIGTERM back to whom it belonged before a trainer ran.

    Lightning's handler waits until all processes have had the signal, which only this one may have got.
    """

    def __init__(self) -> None:
        super().__init__()
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it back."""
        signal.signal(signal.SIGTERM, self._handler)

    on_train_start = on_fit_start
    on_predict_start = on_fit_start


class Ranks:
    """Starts the processes and speaks to them. A context manager, which turns Ctrl-C into `Interrupted`.

    Trainers that are made after `start` find the processes running and start no others.
    """

    def __init__(self, compute: Compute) -> None:
        """Check the devices; nothing is started.

        Raises:
            ValueError: This machine lacks them.
        """
        self._compute = compute
        if any(word in compute.strategy for word in NO_SCRIPT):
            raise ValueError(f"--strategy {compute.strategy} cannot run here; give auto or ddp")
        # Somebody else (torchrun, SLURM, the first process) started us, or is about to.
        self.were_started = any(name in os.environ for name in ("LOCAL_RANK", "SLURM_PROCID", "RANK"))
        try:
            self._fabric = Fabric(
                accelerator=compute.accelerator,
                devices=compute.devices,
                strategy=compute.strategy,
                num_nodes=compute.num_nodes,
            )
        # What Lightning raises for devices that are no numbers, not there, or not supported here.
        except (MisconfigurationException, TypeError, ImportError, RuntimeError) as error:
            raise ValueError(f"{error}; change --devices, --accelerator or --strategy") from error
        self._handler: Any = None

    @property
    def device(self) -> str:
        """Kind of the devices."""
        device = self._fabric.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self._fabric.global_rank

    @property
    def num_ranks(self) -> int:
        """Number of processes."""
        return self._fabric.world_size

    def start(self) -> None:
        """Start the other processes, or meet them."""
        self._fabric.launch()

    def agree(self, plan: Callable[[], Value]) -> Value:
        """Return what process 0 gets from `plan`, in all processes.

        Raises:
            ValueError: As process 0 did; the others end without words.
            OSError: Likewise.
        """
        if self.num_ranks == 1:
            return plan()
        result: tuple[Any, Exception | None] = None, None
        if self.rank == 0:
            try:
                result = plan(), None
            except (ValueError, OSError) as error:
                result = None, error
        value: Value
        value, failure = self._fabric.broadcast(result)
        if failure is not None:
            if self.rank:
                sys.exit(0)  # with an error code, Lightning would kill process 0 before it can say why
            raise failure
        return value

    def wait(self) -> None:
        """Wait for all processes."""
        if self.num_ranks == 1:
            return
        work = torch.distributed.barrier(async_op=True)
        while not work.is_completed():  # a signal gets through, as it would not while torch waits
            time.sleep(POLL_SECONDS)
        work.wait()

    def trainer(self, callback: Callback) -> Trainer:
        """Return a trainer on these processes that predicts only."""
        return Trainer(
            accelerator=self._compute.accelerator,
            devices=self._compute.devices,
            strategy=self._compute.strategy,
            num_nodes=self._compute.num_nodes,
            callbacks=[callback, PlainSigterm()],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,  # each process has its own shards
        )

    def __enter__(self) -> "Ranks":
        """Take over Ctrl-C."""
        process = os.getpid()

        def interrupt(number: int, frame: FrameType | None) -> None:
            # Loading processes inherit this, and know what to do with the usual exception.
            raise Interrupted if os.getpid() == process else KeyboardInterrupt

        self._handler = signal.signal(signal.SIGINT, interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes that were started here, if something went wrong."""
        signal.signal(signal.SIGINT, self._handler)
        if kind is not None:
            for process in getattr(self._fabric.strategy.launcher, "procs", ()):
                process.kill()  # they may wait for us in a collective, where no other signal reaches them
        if kind is Interrupted:
            raise KeyboardInterrupt from None
