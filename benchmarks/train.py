"""Time of a training step beside the time that its matrix products alone would take."""

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import Row, medians
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.spec import FieldSpec

FLOOR = "forward+backward FLOPs at the float32 matmul rate"
MATMUL_SIZE = 2048


def benchmark_train(*, grid: int = 128, repeats: int = 7) -> list[Row]:
    """Time a step (forward, backward, AdamW) of configs/vqvae/demo.yaml's model and of a wider one.

    The floor is the step's floating-point operations in convolutions, matrix products and attention, as
    torch's counter gives them, over the rate of a large float32 matrix product timed in turn with the step.

    Args:
        grid: Grid points along each axis.
        repeats: Rounds, of which the median counts.
    """
    demo = TrainingStep(
        grid, patch_size=4, base_channels=32, channel_mult=(1, 2, 4), num_res_blocks=(0, 1, 1)
    )
    wide = TrainingStep(
        grid, patch_size=2, base_channels=64, channel_mult=(1, 2, 4, 4), num_res_blocks=(1,) * 4, batch_size=4
    )
    return [_time_step(step, grid, repeats) for step in (demo, wide)]


def _time_step(step: "TrainingStep", grid: int, repeats: int) -> Row:
    """One row of the table."""
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
    )


class TrainingStep:
    """A model in its quantized phase, an optimizer and a batch; calling it trains one step."""

    def __init__(
        self,
        grid: int,
        *,
        patch_size: int,
        base_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: Sequence[int],
        batch_size: int = 16,
    ) -> None:
        torch.manual_seed(0)
        latent = grid // 16
        spec = FieldSpec(names=("vorticity",), grid=(grid, grid))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = VQVAE2d(
            spec,
            base_channels=base_channels,
            channel_mult=channel_mult,
            patch_size=patch_size,
            num_res_blocks=num_res_blocks,
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
