"""The encoder of a task: from a checkpoint, or with random weights."""

from pathlib import Path

import torch

from gust_torch.checkpoint import load_model
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.precompute.options import Request
from gust_torch.precompute.sources import TaskData
from gust_torch.tasks.latent_autoencoder import ARCHITECTURE


def load_encoder(path: Path, request: Request) -> LatentAutoencoder:
    """Load a trained autoencoder.

    Raises:
        ValueError: It is none, or --latent-dim or --latent-len say otherwise.
    """
    model = load_model(path, LatentAutoencoder)
    sizes = dict(zip(("latent-len", "latent-dim"), model.latent_shape, strict=True))
    for name, found in sizes.items():
        asked = getattr(request, name.replace("-", "_"))
        if asked not in (None, found):
            raise ValueError(
                f"{path} has {name} {found}, asked for was --{name} {asked}; leave the flag out, or give "
                "another checkpoint"
            )
    return model


def untrained_encoder(data: TaskData, request: Request) -> LatentAutoencoder:
    """Return an autoencoder with random weights and the statistics of the training split.

    The seed, the configuration and the training data decide every bit of it; no global random state does.

    Raises:
        ValueError: Configuration and data do not fit together.
    """
    spec, statistics = data.spec_and_statistics()
    architecture = {name: int(value) for name, value in data.config.model.items() if name in ARCHITECTURE}
    architecture |= latent_sizes(request)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(request.seed or 0)
        model = LatentAutoencoder(spec, **architecture)
    model.set_statistics(statistics.mean, statistics.std)
    if statistics.box is not None:
        model.unit.set(*statistics.box)
    return model.eval()


def latent_sizes(request: Request) -> dict[str, int]:
    """Those of --latent-dim and --latent-len that were given."""
    sizes = {"latent_dim": request.latent_dim, "latent_len": request.latent_len}
    return {name: size for name, size in sizes.items() if size is not None}
