"""Running a model over all of some data on several processes, each of which writes rows of its own."""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

Value = TypeVar("Value")

POLL_SECONDS = 0.05
NO_SCRIPT = ("spawn", "fork", "notebook")
NO_ALLOCATION = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Ranks:
    """Starts the processes of a call and speaks to them: one plans and tells the others, all compute.

    A context manager. Trainers that are made after `start` find the processes running and start no others.
    """

    def __init__(
        self,
        *,
        devices: str = "auto",
        accelerator: str = "auto",
        strategy: str = "auto",
        num_nodes: int = 1,
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
            self._fabric = Fabric(
                accelerator=accelerator, devices=devices, strategy=strategy, num_nodes=num_nodes
            )
        # What Lightning raises for devices that are no numbers, not there, or not supported here.
        except (MisconfigurationException, ValueError, TypeError, ImportError, RuntimeError) as error:
            raise ValueError(
                f"{str(error).rstrip('.')}; change --devices, --accelerator or --strategy"
            ) from error
        self._parent = os.getppid()
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

    def to_device(self, value: Value) -> Value:
        """Put a model or a batch on this process's device."""
        moved: Value = self._fabric.to_device(value)
        return moved

    def agree(self, plan: Callable[[], Value]) -> Value:
        """Return what process 0 gets from `plan`, in all processes.

        Raises:
            ValueError: As process 0 did; the others end without words. Or one of them has ended.
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
        with _others_alive():
            value, failure = self._fabric.broadcast(result)
        if failure is not None:
            if self.rank:
                sys.exit(0)  # with an error code, Lightning would kill process 0 before it can say why
            raise failure
        return value

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, in all of them.

        Raises:
            ValueError: One of them has ended.
        """
        if self.num_ranks == 1:
            return values
        total = self.to_device(values.clone())
        self._finish(lambda: torch.distributed.all_reduce(total, async_op=True))
        return total

    def wait(self) -> None:
        """Wait for all processes.

        Raises:
            ValueError: One of them has ended.
        """
        if self.num_ranks > 1:
            self._finish(lambda: torch.distributed.barrier(async_op=True))

    def _finish(self, begin: Callable[[], Any]) -> None:
        """Do something with all processes; a signal gets through, as it would not while torch waits."""
        with _others_alive():
            work = begin()
            while not work.is_completed():
                time.sleep(POLL_SECONDS)
            work.wait()

    def predict(
        self,
        compute: Callable[[Any], Tensor],
        batches: Dataset[tuple[int, Any]],
        write: Callable[[int, Tensor], None],
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """Compute this process's share of the batches, and write each while the device does the next one.

        Args:
            compute: Takes a batch on the device, gives n rows.
            batches: Items (first row, batch) of known number, the same in all processes.
            write: Takes the first row and the rows (n, ...), on the CPU.
            num_workers: Processes that load ahead.
            pin_memory: Load into page-locked memory where there is a GPU.
        """
        share = range(self.rank, len(batches), self.num_ranks)  # type: ignore[arg-type]
        loader: DataLoader[tuple[int, Any]] = DataLoader(
            Subset(batches, share),
            batch_size=None,
            num_workers=num_workers if len(share) else 0,
            pin_memory=pin_memory and torch.cuda.is_available(),
        )
        waiting: tuple[int, Tensor, torch.cuda.Event | None] | None = None
        with torch.inference_mode():
            for start, batch in loader:
                if os.getppid() != self._parent:
                    raise SystemExit("the process that started this one is gone")
                rows = compute(self.to_device(batch))
                on_cpu = rows.to("cpu", non_blocking=rows.is_cuda)
                copied = torch.cuda.current_stream().record_event() if rows.is_cuda else None
                if waiting is not None:
                    _write(write, *waiting)
                waiting = start, on_cpu, copied
            if waiting is not None:
                _write(write, *waiting)

    def __enter__(self) -> Ranks:
        """Hear Ctrl-C, even where a shell started us in the background."""
        self._handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes that were started here, if something went wrong."""
        signal.signal(signal.SIGINT, self._handler)
        if kind is not None:
            for process in getattr(self._fabric.strategy.launcher, "procs", ()):
                process.kill()  # they may wait for us in a collective, where no other signal reaches them


@contextmanager
def _others_alive() -> Iterator[None]:
    """Say in one line that another process died, which torch tells of its connections."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(
            "another process of this command has ended, see above; the same command continues"
        ) from error


def _write(
    write: Callable[[int, Tensor], None], start: int, rows: Tensor, copied: torch.cuda.Event | None
) -> None:
    if copied is not None:
        copied.synchronize()
    write(start, rows)


def allocate_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Make a .npy file of zeros whose bytes are reserved on the disk, so that a full one shows at once.

    Raises:
        OSError: The disk has no room, or no file may be so large; the file is removed.
    """
    try:
        with path.open("wb") as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": shape,
            }
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            size = file.tell() + math.prod(shape) * dtype.itemsize
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except AttributeError:  # not on macOS and Windows
                file.truncate(size)
            except OSError as error:
                if error.errno not in NO_ALLOCATION:
                    raise
                file.truncate(size)
    except OSError as error:
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
        self._file = path.open("r+b")
        np.lib.format.read_magic(self._file)
        self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(self._file)
        self._offset = self._file.tell()

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows (n, ...) of the file's type from `start` on.

        Raises:
            ValueError: They do not fit the file.
            OSError: The disk is full.
        """
        if rows.shape[1:] != self.shape[1:] or not 0 <= start <= start + len(rows) <= self.shape[0]:
            raise ValueError(f"expected rows of {self.shape}, got {rows.shape} from row {start} on")
        values = np.ascontiguousarray(rows, self.dtype)
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            self._file.seek(self._offset + start * row_bytes)
            self._file.write(values.data)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
