"""The model part of a checkpoint: enough to rebuild the model, read without running pickled code."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import textwrap
import warnings
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from gust_torch.graph_spec import GraphSpec
from gust_torch.identity import IDENTITY_KEY
from gust_torch.models.lapped_vqvae import LappedVQVAE2d
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.models.token_model import TokenModel
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.spec import FieldSpec
from solvers.common.files import path_aside
from solvers.common.urls import redact

Module = TokenModel | LatentAutoencoder | LatentOperator
Model = TypeVar("Model", TokenModel, LatentAutoencoder, LatentOperator)
KINDS = (VQVAE2d, LappedVQVAE2d, LatentAutoencoder, LatentOperator)

FORMAT_VERSION = 1
MODEL_KEY = "gust_torch"
WEIGHT_PREFIX = "model."  # the task holds its network as `model`
EXTRA_STATE = "_extra_state"  # ends the names under which modules keep plain values beside their weights


def model_state(model: Module) -> dict[str, object]:
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


def save_model(model: Module, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint with the model alone; training checkpoints hold the same two entries and more."""
    weights = {WEIGHT_PREFIX + name: value for name, value in model.state_dict().items()}
    with path_aside(Path(path)) as temporary:
        torch.save({MODEL_KEY: model_state(model), "state_dict": weights}, temporary)


@overload
def load_model(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> TokenModel: ...


@overload
def load_model(
    path: str | os.PathLike[str], kind: type[Model], *, device: str | torch.device = "cpu"
) -> Model: ...


def load_model(
    path: str | os.PathLike[str], kind: type[Any] = TokenModel, *, device: str | torch.device = "cpu"
) -> Any:
    """Rebuild the model of a checkpoint, in evaluation mode.

    Args:
        path: A checkpoint of `scripts/train.py` or of `save_model`.
        kind: The expected class, or one above it: `TokenModel` (any VQ-VAE), `LatentAutoencoder`, ...
        device: Where to put the model.

    Raises:
        ValueError: If the file is missing, damaged, holds a model of another class, or is not a checkpoint
            of this package.
    """
    checkpoint = read_checkpoint(path)
    name = redact(str(path))
    state, weights = checkpoint.get(MODEL_KEY), checkpoint.get("state_dict")
    if not isinstance(state, dict) or not isinstance(weights, dict):
        raise ValueError(f"{name} is not a checkpoint of scripts/train.py; train one with it")
    if state.get("format_version") != FORMAT_VERSION:
        found = f"checkpoint format {state.get('format_version')}, this version reads {FORMAT_VERSION}"
        raise ValueError(f"{name} has {found}; use the package version that wrote it or train again")
    model_name = str(state.get("model", VQVAE2d.__name__))  # older files hold nothing else
    kinds = {item.__name__: item for item in KINDS if issubclass(item, kind)}
    if model_name not in kinds:
        raise ValueError(
            f"{name} holds a {model_name}, expected a {' or '.join(kinds)}; give another checkpoint"
        )
    try:
        model = _rebuild(kinds[model_name], state, weights, Path(path).stat().st_size)
    except Exception as error:  # torch and the models raise many kinds for what makes no sense
        reason = textwrap.shorten(str(error), 200, placeholder="...") or type(error).__name__
        problem = f"weights do not match the architecture or the spec beside them ({reason})"
        raise ValueError(f"{name}: {problem}; copy the checkpoint or train again") from error
    return model.to(device).eval()


def read_checkpoint(path: str | os.PathLike[str], *, mmap: bool = False) -> dict[str, Any]:
    """Read all of a checkpoint to the CPU, running no code of it; tensors when looked at with `mmap`.

    Raises:
        ValueError: If there is none, or it is damaged or no checkpoint.
        OSError: If it may not be read.
    """
    name = redact(str(path))
    if not Path(path).is_file():
        raise ValueError(f"no checkpoint at {name}; train.py writes them under --trainer.default_root_dir")
    Path(path).open("rb").close()  # who may not read it should hear that
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles by others
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # many kinds, whose words would send the user to weights_only=False
        problem = "is not a readable checkpoint, or a truncated one"
        raise ValueError(f"{name} {problem}: copy it or train again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} is not a checkpoint of scripts/train.py; train one with it")
    return content


def load_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a training checkpoint says of its data, {} where nothing; see `gust_torch.identity`."""
    found = read_checkpoint(path, mmap=True).get(IDENTITY_KEY)
    return dict(found) if isinstance(found, dict) else {}


def model_digest(model: Module) -> str:
    """sha256 of class, architecture, spec and all weights and buffers; the device does not matter."""
    state = {key: value for key, value in model_state(model).items() if key != "format_version"}
    digest = hashlib.sha256(json.dumps(state, sort_keys=True, separators=(",", ":")).encode())
    for name, tensor in sorted(_tensors(model.state_dict()).items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"\0{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _rebuild(kind: type[Any], state: dict[str, Any], stored: dict[str, Any], num_bytes: int) -> Any:
    """Make the model of a file of so many bytes, without memory for more than its weights.

    Raises:
        Exception: Of any kind, for a spec, an architecture or weights that make no sense.
    """
    weights = {
        name.removeprefix(WEIGHT_PREFIX): value
        for name, value in stored.items()
        if name.startswith(WEIGHT_PREFIX)
    }
    tensors = _tensors(weights)
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise ValueError(f"{name} is no plain tensor")
        if value.numel() * value.element_size() > num_bytes:
            raise ValueError(f"{name} is larger than the file")
    count = itertools.count(1)

    def limit(module: object, name: str, parameter: object) -> None:
        if next(count) > len(weights):
            raise ValueError("the architecture has more parameters than there are weights")

    spec = (FieldSpec if "grid" in state["spec"] else GraphSpec).from_dict(state["spec"])
    hook = register_module_parameter_registration_hook(limit)
    try:
        with torch.device("meta"):
            model = kind(spec, **state["architecture"])
    finally:
        hook.remove()
    shapes = {name: value.shape for name, value in _tensors(model.state_dict()).items()}
    found = {name: value.shape for name, value in tensors.items()}
    wrong = [name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)]
    if wrong:
        raise ValueError(f"{len(wrong)} weights are missing or of another shape, {min(wrong)} the first")
    for name in ("mean", "std", *dict(model.named_parameters())):  # some buffers hold NaN until they are set
        if name in weights and not bool(torch.isfinite(weights[name]).all()):
            raise ValueError(f"{name} holds NaN or Inf; the training diverged")
    if "std" in weights and not bool((weights["std"] > 0).all()):
        raise ValueError("std is not positive")
    model = kind(spec, **state["architecture"])
    model.load_state_dict(weights)
    return model


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.endswith(EXTRA_STATE)}
