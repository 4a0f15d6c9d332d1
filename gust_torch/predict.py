"""Running a model over all of some data on several processes, each of which writes rows of its own."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from solvers.common.progress import Progress

Value = TypeVar("Value")

POLL_SECONDS = 0.05
NO_SCRIPT = ("spawn", "fork", "notebook")
NO_ALLOCATION = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Ranks:
    """Starts the processes of a call and speaks to them: one plans and tells the others, all compute.

    A context manager. Trainers that are made after `fabric.launch()` find the processes running and start no
    others.
    """

    def __init__(
        self, *, devices: str = "auto", accelerator: str = "auto", strategy: str = "auto", num_nodes: int = 1
    ) -> None:
        """Check the devices; nothing is started. The arguments are those of Lightning's `Trainer`.

        Raises:
            ValueError: This machine lacks them.
        """
        if any(word in strategy for word in NO_SCRIPT):
            raise ValueError(f"--strategy {strategy} cannot run here; give auto or ddp")
        # Somebody else (torchrun, SLURM, the first process) started us, or is about to.
        self.were_started = any(name in os.environ for name in ("LOCAL_RANK", "SLURM_PROCID", "RANK"))
        try:
            self.fabric = Fabric(
                accelerator=accelerator, devices=devices, strategy=strategy, num_nodes=num_nodes
            )
        # What Lightning raises for devices that are no numbers, not there, or not supported here.
        except (MisconfigurationException, ValueError, TypeError, ImportError, RuntimeError) as error:
            text = str(error).rstrip(".")
            raise ValueError(f"{text}; change --devices, --accelerator or --strategy") from error
        self._parent = os.getppid()

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.fabric.global_rank

    @property
    def num_ranks(self) -> int:
        """Number of processes."""
        return self.fabric.world_size

    def agree(self, plan: Callable[[], Value]) -> Value:
        """Return what process 0 gets from `plan`, in all processes.

        What it raises (ValueError, OSError) is raised there too; the others then end without words.
        """
        result: tuple[Any, Exception | None] = None, None
        if self.rank == 0:
            try:
                result = plan(), None
            except (ValueError, OSError) as error:
                result = None, error
        if self.num_ranks > 1:
            with _others_alive():
                result = self.fabric.broadcast(result)
        value, failure = result
        if failure is not None:
            if self.rank:
                sys.exit(0)  # with an error code, Lightning would kill process 0 before it can say why
            raise failure
        return value

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, in all of them; they wait for each other."""
        if self.num_ranks == 1:
            return values
        total: Tensor = self.fabric.to_device(values.clone())
        with _others_alive():
            work = torch.distributed.all_reduce(total, async_op=True)
            while not work.is_completed():
                time.sleep(POLL_SECONDS)  # where a signal gets through, as it would not while torch waits
            work.wait()
        return total.cpu()

    def wait(self) -> None:
        """Wait for all processes."""
        self.sum(torch.zeros(1))

    def predict(
        self,
        compute: Callable[[Any], Tensor],
        read: Callable[[range], Any],
        batches: Sequence[range],
        write: Callable[[int, Tensor], None],
        *,
        title: str,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """Compute this process's share of the batches, and write each while the device does the next one.

        Args:
            compute: Takes a batch on the device, gives a row for each sample.
            read: Takes the numbers of samples, gives a batch of them.
            batches: Samples of each batch, the same in all processes.
            write: Takes the number of the first sample and the rows (n, ...), on the CPU.
            title: Of the progress, which process 0 shows.
            num_workers: Processes that read ahead.
            pin_memory: Read into page-locked memory where there is a GPU.
        """
        share = batches[self.rank :: self.num_ranks]
        loader: DataLoader[tuple[int, Any]] = DataLoader(
            _Batches(read, share),
            batch_size=None,
            num_workers=num_workers if share else 0,
            pin_memory=pin_memory and torch.cuda.is_available(),
        )
        part = f", process 0 of {self.num_ranks}" if self.num_ranks > 1 else ""
        total = sum(map(len, share))
        shown = Progress(total, unit="sample", description=f"{title}{part}") if self.rank == 0 else None

        def finish(start: int, rows: Tensor, copied: torch.cuda.Event | None) -> None:
            if copied is not None:
                copied.synchronize()
            write(start, rows)
            if shown is not None:
                shown.update(len(rows))

        waiting: tuple[int, Tensor, torch.cuda.Event | None] | None = None
        with torch.inference_mode(), shown or nullcontext():
            for start, batch in loader:
                if os.getppid() != self._parent:
                    raise SystemExit("the process that started this one is gone")
                rows = compute(self.fabric.to_device(batch))
                on_cpu = rows.to("cpu", non_blocking=rows.is_cuda)
                copied = torch.cuda.current_stream().record_event() if rows.is_cuda else None
                if waiting is not None:
                    finish(*waiting)
                waiting = start, on_cpu, copied
            if waiting is not None:
                finish(*waiting)

    def __enter__(self) -> Ranks:
        """Hear Ctrl-C, even where a shell started us in the background."""
        self._handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """End the processes that were started here, if something went wrong."""
        signal.signal(signal.SIGINT, self._handler)
        if kind is not None:
            for process in getattr(self.fabric.strategy.launcher, "procs", ()):
                process.kill()  # they may wait for us in a collective, where no other signal reaches them


@contextmanager
def _others_alive() -> Iterator[None]:
    """Say in one line that another process died, which torch tells of its connections."""
    try:
        yield
    except RuntimeError as error:
        text = "another process of this command has ended, see above; the same command continues"
        raise ValueError(text) from error


class _Batches(Dataset[tuple[int, Any]]):
    def __init__(self, read: Callable[[range], Any], batches: Sequence[range]) -> None:
        self._read, self._batches = read, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return self._batches[index].start, self._read(self._batches[index])


def allocate_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Make a .npy file of zeros whose bytes are reserved on the disk, so that a full one shows at once.

    Raises:
        OSError: The disk has no room, or no file may be so large; the file is removed.
    """
    try:
        np.lib.format.open_memmap(path, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno not in NO_ALLOCATION:
            path.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error


class RowFile:
    """Writes rows of a .npy file in place, in any order; several processes may write different rows.

    By plain writes and not through a memory map, where a disk that is full or gone ends the process by
    SIGBUS.
    """

    def __init__(self, path: Path) -> None:
        """Open a file of `allocate_rows` or `np.save`."""
        self.path = path
        self._rows: np.memmap = np.load(path, mmap_mode="r")
        self._file = path.open("r+b")

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows (n, ...) from number `start` on.

        Raises:
            OSError: The disk is full.
        """
        assert rows.shape[1:] == self._rows.shape[1:]
        assert 0 <= start <= start + len(rows) <= len(self._rows)
        try:
            self._file.seek(self._rows.offset + start * self._rows.strides[0])
            self._file.write(np.ascontiguousarray(rows, self._rows.dtype).data)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """Close the file, and its map, which keeps other systems from renaming its folder."""
        self._file.close()
        del self._rows
