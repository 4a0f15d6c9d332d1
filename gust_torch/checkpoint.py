"""The model part of a checkpoint: enough to rebuild the model, read without running pickled code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, TypeVar, overload

import torch

from gust_torch.graph_spec import GraphSpec
from gust_torch.identity import IDENTITY_KEY
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.spec import FieldSpec

Model = TypeVar("Model", VQVAE2d, LatentAutoencoder, LatentOperator)

FORMAT_VERSION = 1
MODEL_KEY = "gust_torch"
WEIGHT_PREFIX = "model."
"""The task holds its network as `model`, so a Lightning checkpoint's weights carry this prefix."""


def model_state(model: VQVAE2d | LatentAutoencoder | LatentOperator) -> dict[str, object]:
    """Return what `load_model` needs beside the weights (normalization statistics are buffers among these).

    Returns:
        Plain Python values: `format_version`, `model` (the class), `architecture`, `spec`.
    """
    return {
        "format_version": FORMAT_VERSION,
        "model": type(model).__name__,
        "architecture": model.architecture(),
        "spec": model.spec.to_dict(),
    }


def save_model(model: VQVAE2d | LatentAutoencoder | LatentOperator, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint with the model alone; training checkpoints hold the same two entries and more."""
    weights = {WEIGHT_PREFIX + name: value for name, value in model.state_dict().items()}
    temporary = Path(f"{path}.part")
    torch.save({MODEL_KEY: model_state(model), "state_dict": weights}, temporary)
    temporary.replace(path)


@overload
def load_model(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> VQVAE2d: ...


@overload
def load_model(
    path: str | os.PathLike[str], kind: type[Model], *, device: str | torch.device = "cpu"
) -> Model: ...


def load_model(
    path: str | os.PathLike[str], kind: type[Any] = VQVAE2d, *, device: str | torch.device = "cpu"
) -> Any:
    """Rebuild the model of a checkpoint, in evaluation mode.

    Args:
        path: A checkpoint of `scripts/train.py` or of `save_model`.
        kind: The model's class, which the caller expects: `VQVAE2d`, `LatentAutoencoder` or
            `LatentOperator`.
        device: Where to put the model.

    Raises:
        ValueError: If the file is missing, damaged, holds a model of another class, or is not a checkpoint
            of this package.
    """
    checkpoint = _read(Path(path))
    state = checkpoint.get(MODEL_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or "state_dict" not in checkpoint:
        raise ValueError(
            f"{path} is not a checkpoint of scripts/train.py (no {MODEL_KEY!r} entry); train one with it"
        )
    if state["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has checkpoint format {state['format_version']}, this version reads {FORMAT_VERSION}; "
            "use the package version that wrote it or train again"
        )
    name = state.get("model", VQVAE2d.__name__)  # older files hold nothing else
    if name != kind.__name__:
        raise ValueError(f"{path} holds a {name}, expected a {kind.__name__}; give the checkpoint of one")
    model = kind(_spec(state["spec"]), **state["architecture"])
    weights = {
        name.removeprefix(WEIGHT_PREFIX): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(WEIGHT_PREFIX)
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: weights do not match the architecture stored beside them; train again ({error})"
        ) from error
    return model.to(device).eval()


def load_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a training checkpoint says of its data; see `gust_torch.identity`.

    Nothing where it says nothing. The weights are not read.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    found = checkpoint.get(IDENTITY_KEY)
    return dict(found) if isinstance(found, dict) else {}


def _spec(values: dict[str, Any]) -> FieldSpec | GraphSpec:
    """Specs of grids have a `grid`, those of graphs have none."""
    return FieldSpec.from_dict(values) if "grid" in values else GraphSpec.from_dict(values)


def _read(path: Path) -> Any:
    """torch.load with `weights_only`, its many errors as one kind."""
    if not path.is_file():
        raise ValueError(
            f"no checkpoint at {path}; scripts/train.py writes them under --trainer.default_root_dir"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, LookupError, AttributeError, RuntimeError, EOFError, OSError) as error:
        # torch's own words would send the user to weights_only=False.
        raise ValueError(
            f"{path} is not a readable checkpoint, or a truncated one: copy it or train again"
        ) from error
