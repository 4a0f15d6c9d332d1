"""Advected waves as files, stand-ins for operators whose errors are known, checkpoints of tiny real ones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gust_torch.checkpoint import save_model
from gust_torch.data.graphs.datasets import ParticleZarrDataset
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.evaluation.evaluate import Evaluation, evaluate
from gust_torch.evaluation.schedule import Settings, make_schedule
from gust_torch.latents.frames import GraphFrames, GridFrames
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.points import grid_points
from gust_torch.spec import FieldSpec
from solvers.common.hdf5_utils import HDF5Writer

LINE = FieldSpec(names=("u",), grid=(16, 1), lengths=(1.0, 1.0))
PLANE = FieldSpec(names=("p", "vorticity"), grid=(8, 4), boundary=("periodic", "wall"), lengths=(2.0, 1.0))
SPECS = {"line": LINE, "plane": PLANE}
STEP = 0.25


def _waves(spec: FieldSpec, lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Trajectories (t, c, h, w) of random fields that move by one cell in x each step."""
    rng = np.random.default_rng(seed)
    starts = 1 + rng.standard_normal((len(lengths), spec.num_channels, *spec.grid)).astype(np.float32)
    return [
        np.stack([np.roll(start, k, axis=1) for k in range(n)])
        for start, n in zip(starts, lengths, strict=True)
    ]


def _write(
    path: Path,
    spec: FieldSpec,
    trajectories: Sequence[np.ndarray],
    *,
    steps: Sequence[float],
    parameters: bool,
) -> Path:
    """Return a common-format file; trajectory i has times `steps[i]` apart and, if asked for, nu =
    0.1 (i + 1)."""
    (h, w), (length_x, length_y) = spec.grid, spec.lengths
    metadata: dict[str, str | float] = {"solver": "test", "grid_y": "uniform"}
    metadata |= {"length_x": length_x, "length_y": length_y}
    metadata |= {"boundary_x": spec.boundary[0], "boundary_y": spec.boundary[1]}
    with HDF5Writer(
        path,
        fields=dict.fromkeys(spec.names, spec.grid),
        coordinates={
            "x": (np.arange(h) + 0.5) * length_x / h,
            "y": (np.arange(w) + 0.5) * length_y / w if w > 1 else np.zeros(1),
        },
        metadata=metadata,
        parameters={"nu": [0.1 * (i + 1) for i in range(len(trajectories))]} if parameters else {},
    ) as writer:
        for i, (values, step) in enumerate(zip(trajectories, steps, strict=True)):
            writer.append(
                {name: values[:, channel] for channel, name in enumerate(spec.names)},
                time=step * np.arange(len(values)),
                trajectory=np.full(len(values), i, dtype=np.int32),
            )
        writer.close(complete=True)
    return path


class ScalingAutoencoder(nn.Module):
    """Latents are the grid values themselves; decoding multiplies by `scale`, so nRMSE is |scale - 1|."""

    def __init__(self, spec: FieldSpec, scale: float = 1.0) -> None:
        super().__init__()
        self.spec, self.scale = spec, scale
        self.register_buffer("mean", torch.zeros(spec.num_channels))

    def points(self, batch: Tensor) -> object:
        return grid_points(batch, self.spec)

    def encode(self, batch: Tensor) -> Tensor:
        return batch.flatten(2).transpose(1, 2)

    def decode(self, latent: Tensor, coordinates: Tensor) -> Tensor:
        cells = [n / length for n, length in zip(self.spec.grid, self.spec.lengths, strict=True)]
        index = (coordinates * torch.tensor(cells[: coordinates.shape[-1]]) + 1e-3).floor().long()
        flat = index[:, 0] if coordinates.shape[-1] == 1 else index[:, 0] * self.spec.grid[1] + index[:, 1]
        return self.scale * latent[:, flat]


class StandInOperator(nn.Module):
    """An operator whose step is a given function of (latent, time_step, parameters)."""

    def __init__(
        self,
        spec: FieldSpec,
        step: Callable[[Tensor, Tensor, Tensor], Tensor],
        *,
        scale: float = 1.0,
        parameter_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.spec, self.step, self.parameter_names = spec, step, parameter_names
        self.autoencoder = ScalingAutoencoder(spec, scale)


def _evaluate(operator: StandInOperator, path: Path, **settings: int | None) -> Evaluation:
    """Evaluate a stand-in on a file."""
    source = GraphFrames(ParticleZarrDataset(path), operator.spec) if path.is_dir() else _grid(path)
    chosen = Settings(**settings)
    schedule = make_schedule(source.trajectories, source.times, chosen, str(path))
    names = operator.parameter_names
    parameters = torch.tensor(
        [[source.parameters[name][number] for name in names] for number in schedule.trajectories]
    ).float()
    return evaluate(operator, source, schedule, parameters, batch_size=chosen.batch_size)


def _grid(path: Path) -> GridFrames:
    return GridFrames(HDF5Dataset(path))


def advect(spec: FieldSpec) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the exact step of `waves`."""
    h, w = spec.grid

    def step(latent: Tensor, time_step: Tensor, parameters: Tensor) -> Tensor:
        fields = latent.unflatten(1, (h, w))
        return fields.roll(1, dims=1).flatten(1, 2)

    return step


def _tiny_operator(spec: object, parameter_names: tuple[str, ...] = ("nu",)) -> LatentOperator:
    """Return a real operator with random weights that does not stand still."""
    torch.manual_seed(0)
    sizes = {"latent_len": 4, "latent_dim": 8, "width": 16, "num_local_layers": 1, "num_layers": 1}
    sizes |= {"num_decoder_layers": 1, "num_heads": 2, "num_frequencies": 3}
    architecture = LatentAutoencoder(spec, **sizes).architecture()
    operator = LatentOperator(
        spec,
        autoencoder=architecture,
        parameter_names=parameter_names,
        width=16,
        num_layers=1,
        num_heads=2,
    )
    with torch.no_grad():
        operator.to_latent.weight.normal_(std=0.1)
    return operator.eval()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """All of the above; `write_waves` writes what `waves` gives, of the kind "line" or "plane"."""

    def write_waves(
        kind: str, lengths: Sequence[int], *, steps: Sequence[float] | None = None, parameters: bool = True
    ) -> Path:
        path = tmp_path_factory.mktemp("waves") / f"{kind}_test.h5"
        steps = [STEP] * len(lengths) if steps is None else steps
        waves = _waves(SPECS[kind], lengths)
        return _write(path, SPECS[kind], waves, steps=steps, parameters=parameters)

    return SimpleNamespace(
        write_waves=write_waves,
        waves=_waves,
        stand_in=StandInOperator,
        exact_step=advect,
        run_evaluation=_evaluate,
        tiny_operator=_tiny_operator,
    )


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of tiny operators for lines and planes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for kind, spec in SPECS.items():
        save_model(_tiny_operator(spec), folder / f"{kind}.ckpt")
    return {kind: folder / f"{kind}.ckpt" for kind in SPECS}
