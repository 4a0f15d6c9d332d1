"""Configurations of autoencoders: where they lie, and what they say of model and data."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gust_torch.data.datamodule import FieldDataModule
from gust_torch.data.graphs.datamodule import GraphDataModule
from gust_torch.tasks.latent_autoencoder import LatentAutoencoderTask

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "autoencoder"
GRID_CONFIG = "grid"


@dataclass(frozen=True)
class TrainingConfig:
    """A YAML file of `scripts/train.py` that trains a `LatentAutoencoder`.

    Attributes:
        path: The file.
        text: Its content.
        model: Arguments of the task.
        data: Arguments of the data module.
        is_graph: Whether the data are graphs.
        names_data: Whether the file names the data module's class, so that flags are
            `--data.init_args.NAME`.
    """

    path: Path
    text: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    is_graph: bool
    names_data: bool

    def data_flag(self, name: str) -> str:
        """Flag of an argument of the data module."""
        return f"--data.init_args.{name}" if self.names_data else f"--data.{name}"


def find_config(task: str, data: Path, given: Path | None) -> Path:
    """Return the configuration of a task: the given one, its own, or that of all grids.

    Args:
        task: Such as "burgers1d".
        data: A file of the task.
        given: --config.

    Raises:
        ValueError: There is none.
    """
    own = CONFIGS / f"{task}.yaml"
    if given is not None or own.is_file():
        return given or own
    shared = CONFIGS / f"{GRID_CONFIG}.yaml"
    if data.suffix == ".h5" and shared.is_file():
        return shared
    raise ValueError(f"no {own}, which {data} needs; give a configuration by --config")


def read_config(path: Path) -> TrainingConfig:
    """Read a configuration.

    Raises:
        ValueError: It cannot be read, or its model or data are not those of an autoencoder.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file ({error}); correct it") from error
    model, data = (_section(path, values, name) for name in ("model", "data"))
    model_class, data_class = (_class(path, section) for section in (model, data))
    if model_class is None or not issubclass(model_class, LatentAutoencoderTask):
        raise ValueError(
            f"{path} trains no autoencoder; let its model have class_path: gust_torch.LatentAutoencoderTask"
        )
    is_graph = data_class is not None and issubclass(data_class, GraphDataModule)
    if data_class is not None and not is_graph and not issubclass(data_class, FieldDataModule):
        raise ValueError(
            f"{path}: the data are a {data_class.__name__}, expected a FieldDataModule (grids) or a "
            "GraphDataModule (meshes, particles)"
        )
    return TrainingConfig(
        path=path,
        text=text,
        model=_arguments(model, model_class),
        data=_arguments(data, data_class),
        is_graph=is_graph,
        names_data=data_class is not None,
    )


def _section(path: Path, values: object, name: str) -> dict[str, Any]:
    """Return a part of the file, empty where it is missing."""
    section = values.get(name) if isinstance(values, dict) else None
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{path}: {name} must be a mapping, got {section!r}")
    return section


def _arguments(section: dict[str, Any], named: type | None) -> dict[str, Any]:
    """Arguments of the class: all of the section, or its `init_args`."""
    return section if named is None else section.get("init_args") or {}


def _class(path: Path, section: dict[str, Any]) -> type | None:
    """Return the class that a section names."""
    name = section.get("class_path")
    if name is None:
        return None
    module, _, attribute = str(name).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: there is no class {name} ({error}); correct class_path") from error
    if not isinstance(found, type):
        raise ValueError(f"{path}: {name} is no class; correct class_path")
    return found
