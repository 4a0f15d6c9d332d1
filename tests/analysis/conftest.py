"""Tiny VQ-VAEs with random weights, their data files and checkpoints."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gust_torch.checkpoint import save_model
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.spec import FieldSpec
from solvers.common.hdf5_utils import HDF5Writer

TURBULENCE = FieldSpec(names=("vorticity",), grid=(32, 32), forcing_wavenumber=4.0)
CONVECTION = FieldSpec(
    names=("buoyancy", "vorticity"),
    grid=(32, 16),
    boundary=("periodic", "wall"),
    lengths=(4.0, 1.0),
    grid_y="chebyshev",
)
SCALES = {32: ((1, 1), (2, 2), (8, 8)), 16: ((1, 1), (4, 2), (8, 4))}
NUM_FRAMES = 7


def _fields(spec: FieldSpec, num: int, seed: int = 0) -> Tensor:
    """Smooth random fields (num, c, h, w): mean 0.5, deviation 0.2 for buoyancy, 0 and 5 for all others."""
    noise = torch.randn(num, spec.num_channels, *spec.grid, generator=torch.Generator().manual_seed(seed))
    modes = torch.fft.rfft2(noise)
    k = torch.hypot(
        32 * torch.fft.fftfreq(spec.grid[0])[:, None], 32 * torch.fft.rfftfreq(spec.grid[1])[None, :]
    )
    smooth = torch.fft.irfft2(modes / (1 + k**2), s=spec.grid)
    smooth = smooth / smooth.std(dim=(-2, -1), keepdim=True)
    mean = torch.tensor([0.5 if name == "buoyancy" else 0.0 for name in spec.names])
    std = torch.tensor([0.2 if name == "buoyancy" else 5.0 for name in spec.names])
    return smooth * std[:, None, None] + mean[:, None, None]


def _model(spec: FieldSpec) -> VQVAE2d:
    """Return a model with random weights and codebooks fitted to them."""
    torch.manual_seed(0)
    model = VQVAE2d(
        spec,
        base_channels=8,
        channel_mult=(1, 1),
        num_res_blocks=1,
        codebook_dim=4,
        vocab_size=(4, 8, 16),
        scales=SCALES[spec.grid[1]],
        attention_heads=2,
        autoencoder_steps=0,
    )
    frames = _fields(spec, 64, seed=100)
    model.set_statistics(frames.mean(dim=(0, 2, 3)), frames.std(dim=(0, 2, 3)))
    model.train()
    with torch.no_grad():
        model(frames)
    return model.eval()


def _write(path: Path, spec: FieldSpec, frames: Tensor) -> Path:
    """Write frames as a file of the common format."""
    (h, w), (length_x, length_y) = spec.grid, spec.lengths
    y = np.arange(w) * length_y / w
    if spec.grid_y == "chebyshev":
        y = 0.5 * length_y * (1 - np.cos(np.pi * (np.arange(w) + 0.5) / w))
    metadata: dict[str, str | int | float | bool] = {
        "solver": "test",
        "boundary_x": spec.boundary[0],
        "boundary_y": spec.boundary[1],
        "grid_y": spec.grid_y,
        "length_x": length_x,
        "length_y": length_y,
    }
    if spec.forcing_wavenumber is not None:
        metadata |= {"fkx": spec.forcing_wavenumber, "fky": spec.forcing_wavenumber}
    with HDF5Writer(
        path,
        fields=dict.fromkeys(spec.names, spec.grid),
        coordinates={"x": np.arange(h) * length_x / h, "y": y},
        metadata=metadata,
    ) as writer:
        for i, frame in enumerate(frames):
            writer.append(dict(zip(spec.names, frame.numpy(), strict=True)), time=0.25 * i)
        writer.close(complete=True)
    return path


@pytest.fixture(scope="session")
def make_fields() -> Callable[..., Tensor]:
    """`make_fields(spec, num, seed=0)`."""
    return _fields


@pytest.fixture(scope="session")
def turbulence() -> VQVAE2d:
    """One field, periodic, known forcing."""
    return _model(TURBULENCE)


@pytest.fixture(scope="session")
def convection() -> VQVAE2d:
    """Two fields between walls on Chebyshev nodes, unknown forcing."""
    return _model(CONVECTION)


@pytest.fixture(scope="session")
def turbulence_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven frames of vorticity."""
    path = tmp_path_factory.mktemp("data") / "turbulence.h5"
    return _write(path, TURBULENCE, _fields(TURBULENCE, NUM_FRAMES))


@pytest.fixture(scope="session")
def convection_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven frames of buoyancy and vorticity."""
    path = tmp_path_factory.mktemp("data") / "convection.h5"
    return _write(path, CONVECTION, _fields(CONVECTION, NUM_FRAMES))


def _save(model: VQVAE2d, folder: Path) -> Path:
    save_model(model, folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.fixture(scope="session")
def turbulence_checkpoint(tmp_path_factory: pytest.TempPathFactory, turbulence: VQVAE2d) -> Path:
    """Checkpoint of `turbulence`."""
    return _save(turbulence, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def convection_checkpoint(tmp_path_factory: pytest.TempPathFactory, convection: VQVAE2d) -> Path:
    """Checkpoint of `convection`."""
    return _save(convection, tmp_path_factory.mktemp("checkpoint"))
