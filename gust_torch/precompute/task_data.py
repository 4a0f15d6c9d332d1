"""The data of a task and the configuration that says how they become input of an encoder."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import Tensor

from gust_torch.convert.graphs import GRAPH_TASKS
from gust_torch.data.datamodule import FieldDataModule
from gust_torch.data.graphs.datamodule import GraphDataModule, graph_spec
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.frames import FrameSource, GraphFrames, GridFrames, open_grid
from gust_torch.precompute.command import Request
from gust_torch.spec import FieldSpec
from gust_torch.tasks.latent_autoencoder import LatentAutoencoderTask
from gust_torch.trust import check_import, restrict_imports
from solvers.common.splits import GRAPHS, GRID, SPLITS, find_splits, split_path

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
        trainer: Arguments of the trainer.
        is_graph: Whether the data are graphs.
        names_data: Whether the file names the data module's class, so that flags are
            `--data.init_args.NAME`.
    """

    path: Path
    text: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    trainer: Mapping[str, Any]
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
    model, data, trainer = (_section(path, values, name) for name in ("model", "data", "trainer"))
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
        trainer=trainer,
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
    check_import(str(name), source=str(path))
    module, _, attribute = str(name).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: there is no class {name} ({error}); correct class_path") from error
    if not isinstance(found, type):
        raise ValueError(f"{path}: {name} is no class; correct class_path")
    return found


@dataclass(frozen=True)
class Statistics:
    """Of the training split, for an untrained encoder.

    Attributes:
        mean: (c,).
        std: (c,).
        box: Corners (d,) of all positions of graphs; None for grids.
    """

    mean: Tensor
    std: Tensor
    box: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class TaskData:
    """Files and configuration of a task.

    Attributes:
        task: Such as "burgers1d".
        paths: Split -> file, of those splits that there are.
        config: Says which fields, and what is made of graphs.
    """

    task: str
    paths: Mapping[str, Path]
    config: TrainingConfig

    def frames(self, split: str, spec: FieldSpec | GraphSpec) -> FrameSource:
        """Return what an encoder with this spec encodes.

        Raises:
            ValueError: The data cannot be read, or are not such as the encoder was made for.
        """
        path = self.paths[split]
        if path.suffix == ".h5":
            return GridFrames(open_grid(path, spec))
        if not isinstance(spec, GraphSpec):
            raise ValueError(
                f"{path} holds graphs, the autoencoder was trained on grids; give one trained on such data"
            )
        dataset = self._module.dataset(split)  # type: ignore[arg-type]
        frames = GraphFrames(dataset, spec)
        found = graph_spec(dataset[0], list(spec.fields))
        if found != spec:
            raise ValueError(
                f"{path} has {_describe(found)}, the autoencoder was trained on {_describe(spec)}; "
                "give one trained on such data"
            )
        return frames

    def spec_and_statistics(self) -> tuple[FieldSpec | GraphSpec, Statistics]:
        """Of the training split.

        Raises:
            ValueError: It cannot be read, or lacks the configuration's fields.
        """
        if not self.config.is_graph:
            dataset = HDF5Dataset(self.paths["train"], fields=self.config.data.get("fields"))
            return dataset.spec, Statistics(*dataset.statistics(), None)
        found = self._module.statistics()
        return self._module.spec, Statistics(found.mean, found.std, (found.lower, found.upper))

    @property
    def options(self) -> dict[str, object]:
        """What of the configuration changes an encoder's input, beside its own fields; plain values."""
        if not self.config.is_graph:
            return {}
        values = self._parsed.as_dict()["data"]
        return {name: values[name] for name in ("kind", "group", "transform")}

    @staticmethod
    def latent_sizes(request: Request) -> dict[str, int]:
        """Return those of --latent-dim and --latent-len that were given."""
        sizes = {"latent_dim": request.latent_dim, "latent_len": request.latent_len}
        return {name: size for name, size in sizes.items() if size is not None}

    @cached_property
    def _parsed(self) -> Namespace:
        """The data section with our paths and all defaults."""
        paths = {f"{split}_path": str(self.paths[split]) if split in self.paths else None for split in SPLITS}
        paths["train_path"] = paths["train_path"] or ""  # an encoder that is there needs no training data
        try:
            parsed: Namespace = self._parser.parse_object({"data": {**self.config.data, **paths}})
        except ArgumentError as error:
            raise ValueError(f"{self.config.path}: {error}") from error
        return parsed

    @cached_property
    def _parser(self) -> ArgumentParser:
        restrict_imports()
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(GraphDataModule, "data")
        return parser

    @cached_property
    def _module(self) -> GraphDataModule:
        module: Any = self._parser.instantiate_classes(self._parsed).data
        assert isinstance(module, GraphDataModule)
        return module


def find_data(request: Request) -> dict[str, TaskData]:
    """Find the files and configurations of all tasks before any work starts.

    Raises:
        ValueError: A file or a configuration is missing, with all missing files at once.
    """
    found = {task: find_splits(request.root, task) for task in request.tasks}
    missing = [
        (task, split)
        for task, paths in found.items()
        for split in _needed_splits(request, found[task])
        if split not in paths
    ]
    if missing:
        raise ValueError(_missing(request, missing))
    return {
        task: TaskData(
            task, paths, read_config(find_config(task, next(iter(paths.values())), request.config))
        )
        for task, paths in found.items()
    }


def _needed_splits(request: Request, paths: Mapping[str, Path]) -> list[str]:
    """Split to encode, and those that the encoder is made from."""
    if request.checkpoint is not None:
        return list(request.splits)
    needed = {*request.splits, "train"}
    if not request.untrained and any(path.suffix == ".zarr" for path in paths.values()):
        needed.add("val")  # trainings on grids validate on a part of the training file
    return [split for split in SPLITS if split in needed]


def _missing(request: Request, missing: list[tuple[str, str]]) -> str:
    """One line about missing files, with what to do."""
    names = [str(split_path(request.root, t, s, GRAPHS if t in GRAPH_TASKS else GRID)) for t, s in missing]
    text = f"missing {', '.join(names)}"
    if unasked := [split for _, split in missing if split not in request.splits]:
        return f"{text}, which the encoder is made from; convert a {unasked[0]} split, or give --checkpoint"
    left = [split for split in request.splits if all(split != s for _, s in missing)]
    remedy = f", or leave it out by --splits {' '.join(left)} (few trajectories give no such split)"
    return (
        f"{text}; convert the tasks first (scripts/convert_pdebench_multimodal.py), fetch them "
        f"(scripts/fetch_datasets.py), change --root{remedy if left else ''}"
    )


def _describe(spec: GraphSpec) -> str:
    motion = "moving" if spec.moving else "resting"
    return f"{', '.join(spec.names)} on {motion} {spec.num_dims}-D graphs"
