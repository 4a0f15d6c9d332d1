"""Time of a training step beside the time that its matrix products alone would take."""

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from gust_torch.models import VQVAE2d
from gust_torch.spec import FieldSpec
from solvers.common.benchmark import Row, medians

GOAL = "<= 2"
FLOOR = "forward+backward FLOPs at the float32 matmul rate"
MATMUL_SIZE = 2048


def benchmark_train(
    base_channels: Sequence[int] = (16, 64), *, grid: int = 128, repeats: int = 7
) -> list[Row]:
    """Time a step (forward, backward, AdamW) of the demo's model and of a wider one.

    The floor is the step's floating-point operations in convolutions, matrix products and attention, as
    torch's counter gives them, over the rate of a large float32 matrix product timed in turn with the step.

    Args:
        base_channels: Width of each model measured.
        grid: Grid points along each axis.
        repeats: Rounds, of which the median counts.
    """
    return [_time_model(width, grid, repeats) for width in base_channels]


def _time_model(base_channels: int, grid: int, repeats: int) -> Row:
    """One row of the table."""
    step = TrainingStep(base_channels, grid, batch_size=16 if base_channels <= 32 else 4)
    flops = step.count_flops()
    a = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=step.x.device)

    def multiply() -> None:
        torch.mm(a, a)
        _wait(a)

    seconds = medians({"step": step, "matmul": multiply}, repeats=repeats)
    rate = 2 * MATMUL_SIZE**3 / seconds["matmul"]
    millions = sum(p.numel() for p in step.model.parameters()) / 1e6
    return Row(
        name=f"train step, {grid}x{grid}, batch {step.x.shape[0]}, {millions:.2f} M parameters, "
        f"{flops / 1e9:.1f} GFLOP, {torch.get_num_threads()} threads",
        value=1e3 * seconds["step"],
        unit="ms",
        floor=1e3 * flops / rate,
        floor_name=f"{FLOOR} ({rate / 1e9:.0f} GFLOP/s)",
        goal=GOAL,
    )


class TrainingStep:
    """A model in its quantised phase, an optimiser and a batch; calling it trains one step."""

    def __init__(self, base_channels: int, grid: int, *, batch_size: int) -> None:
        torch.manual_seed(0)
        latent = grid // 16
        spec = FieldSpec(names=("vorticity",), grid=(grid, grid))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = VQVAE2d(
            spec,
            base_channels=base_channels,
            channel_mult=(1, 2, 4, 4),
            num_res_blocks=1,
            scales=[(n, n) for n in (1, 2, 4, 8, 16) if n <= latent],
            attention_heads=4,
            autoencoder_steps=0,
        ).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.x = torch.randn(batch_size, 1, grid, grid, device=device)
        self()

    def __call__(self) -> None:
        """One step."""
        output = self.model(self.x)
        (output.reconstruction_loss + output.quantizer_loss).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        _wait(self.x)

    def count_flops(self) -> int:
        """Floating-point operations of a step in convolutions, matrix products and attention."""
        with FlopCounterMode(display=False) as counter:
            self()
        return int(counter.get_total_flops())


def _wait(x: torch.Tensor) -> None:
    """Wait for the device of `x`."""
    if x.device.type == "cuda":
        torch.cuda.synchronize()
