"""A tiny VQ-VAE on a non-square, two-channel grid with one wall, its data and its checkpoint."""

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

SPEC = FieldSpec(
    names=("buoyancy", "vorticity"), grid=(16, 8), boundary=("periodic", "wall"), lengths=(4.0, 1.0)
)
NUM_FRAMES = 11


def _build_model(seed: int, *, autoencoder_steps: int = 0) -> VQVAE2d:
    """Return a model with random weights and, unless still in its first steps, with codebooks fitted to
    noise."""
    torch.manual_seed(seed)
    model = VQVAE2d(
        SPEC,
        base_channels=8,
        channel_mult=(1, 1),
        num_res_blocks=1,
        codebook_dim=4,
        vocab_size=(4, 8, 16),
        scales=((1, 1), (2, 1), (4, 2)),
        attention_heads=2,
        autoencoder_steps=autoencoder_steps,
    )
    model.set_statistics(torch.tensor([0.5, 0.0]), torch.tensor([0.2, 5.0]))
    # phi is the identity when new; make the latent depend on its convolution.
    for parameter in model.quantizer.phi.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.train()
    with torch.no_grad():
        model(_make_frames(64, seed=100))
    return model.eval()


def _make_frames(num: int, *, seed: int) -> Tensor:
    """Random physical fields (num, 2, 16, 8)."""
    noise = torch.randn(num, 2, 16, 8, generator=torch.Generator().manual_seed(seed))
    return noise * torch.tensor([0.2, 5.0]).reshape(2, 1, 1) + torch.tensor([0.5, 0.0]).reshape(2, 1, 1)


@pytest.fixture(scope="session")
def build_model() -> Callable[..., VQVAE2d]:
    """`build_model(seed, autoencoder_steps=0)`."""
    return _build_model


@pytest.fixture(scope="session")
def make_frames() -> Callable[..., Tensor]:
    """`make_frames(num, seed=...)`."""
    return _make_frames


@pytest.fixture(scope="session")
def model() -> VQVAE2d:
    """Return the model; tests must not change it."""
    return _build_model(0)


@pytest.fixture(scope="session")
def frames() -> Tensor:
    """Frames of the data file."""
    return _make_frames(NUM_FRAMES, seed=1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, model: VQVAE2d) -> Path:
    """Return the model's checkpoint."""
    path = tmp_path_factory.mktemp("checkpoint") / "model.ckpt"
    save_model(model, path)
    return path


@pytest.fixture(scope="session")
def write_data() -> Callable[..., None]:
    """`write_data(path, frames, boundary_y="wall")` writes (n, 2, h, w) frames, in two trajectories."""

    def write(path: Path, frames: Tensor, boundary_y: str = "wall") -> None:
        num, _, h, w = frames.shape
        with HDF5Writer(
            path,
            fields={"buoyancy": (h, w), "vorticity": (h, w)},
            coordinates={"x": 4.0 * np.arange(h) / h, "y": (np.arange(w) + 0.5) / w},
            metadata={"boundary_x": "periodic", "boundary_y": boundary_y, "length_x": 4.0, "length_y": 1.0},
        ) as writer:
            first = (num + 1) // 2
            writer.append(
                {"buoyancy": frames[:, 0].numpy(), "vorticity": frames[:, 1].numpy()},
                time=0.25 * np.concatenate([np.arange(first), np.arange(num - first)]),
                trajectory=np.repeat([0, 1], [first, num - first]),
            )
            writer.close(complete=True)

    return write


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, frames: Tensor, write_data: Callable[..., None]) -> Path:
    """Return a data file of the frames."""
    path = tmp_path_factory.mktemp("data") / "data.h5"
    write_data(path, frames)
    return path
