"""Small models and inputs."""

from collections.abc import Callable

import pytest
import torch

from gust_torch.models.vqvae import VQVAE2d
from gust_torch.spec import FieldSpec

PERIODIC = FieldSpec(names=("vorticity",), grid=(16, 16))
CHANNEL = FieldSpec(
    names=("buoyancy", "vorticity"), grid=(64, 16), boundary=("periodic", "wall"), lengths=(4.0, 1.0)
)


def _small_model(
    spec: FieldSpec = PERIODIC, *, autoencoder_steps: int = 2, replace_every: int = 3, seed: int = 0
) -> VQVAE2d:
    """Return a model of a few thousand parameters with a latent grid an eighth of the field's."""
    torch.manual_seed(seed)
    latent = (spec.grid[0] // 8, spec.grid[1] // 8)
    return VQVAE2d(
        spec,
        base_channels=8,
        channel_mult=(1, 1, 2),
        num_res_blocks=1,
        codebook_dim=6,
        vocab_size=8,
        scales=((1, 1), latent) if latent == (2, 2) else ((1, 1), (2, 1), (5, 2), latent),
        attention_heads=2,
        autoencoder_steps=autoencoder_steps,
        replace_every=replace_every,
    )


def _smooth_fields(spec: FieldSpec, num: int, seed: int = 0) -> torch.Tensor:
    """Random fields (num, c, h, w) of a steep spectrum, mean 3 and standard deviation about 5."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(num, spec.num_channels, *spec.grid, generator=generator)
    k = torch.fft.fftfreq(spec.grid[0])[:, None].abs() * spec.grid[0]
    k = k + torch.fft.rfftfreq(spec.grid[1]) * spec.grid[1]
    x = torch.fft.irfft2(torch.fft.rfft2(noise) / (1 + k) ** 2, s=spec.grid)
    return 3.0 + 5.0 * x / x.std()


def _train(model: VQVAE2d, batches: list[torch.Tensor], *, lr: float = 1e-3) -> list[float]:
    """Train on the batches, one step each; returns the losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    losses = []
    model.train()
    for x in batches:
        output = model(x)
        loss = output.reconstruction_loss + output.quantizer_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="session")
def small_model() -> Callable[..., VQVAE2d]:
    """`small_model(spec=..., autoencoder_steps=2, replace_every=3, seed=0)`."""
    return _small_model


@pytest.fixture(scope="session")
def smooth_fields() -> Callable[..., torch.Tensor]:
    """`smooth_fields(spec, num, seed=0)`."""
    return _smooth_fields


@pytest.fixture(scope="session")
def train() -> Callable[..., list[float]]:
    """`train(model, batches, lr=1e-3)`."""
    return _train


@pytest.fixture(params=[PERIODIC, CHANNEL], ids=["periodic", "channel"])
def spec(request: pytest.FixtureRequest) -> FieldSpec:
    """Return a square periodic grid and a long, two-channel one with walls."""
    value: FieldSpec = request.param
    return value


@pytest.fixture
def trained(spec: FieldSpec) -> tuple[VQVAE2d, torch.Tensor]:
    """Return a model after a few steps, in evaluation mode, and a batch of its fields."""
    model = _small_model(spec)
    x = _smooth_fields(spec, 4)
    model.set_statistics(x.mean((0, 2, 3)), x.std((0, 2, 3)))
    _train(model, [_smooth_fields(spec, 4, seed) for seed in range(8)])
    return model.eval(), x
