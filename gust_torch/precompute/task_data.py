"""The data of a task and the configuration that says how they become input of an encoder."""

import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from gust_torch.convert.graphs import GRAPH_TASKS
from gust_torch.data.datamodule import FieldDataModule
from gust_torch.data.graphs.datamodule import GraphDataModule, graph_spec
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.frames import FrameSource, GraphFrames, GridFrames, open_grid, require_spec
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.precompute.command import Request
from gust_torch.spec import FieldSpec
from gust_torch.tasks.latent_autoencoder import LatentAutoencoderTask
from gust_torch.trust import check_import, restrict_imports
from solvers.common.splits import GRAPHS, GRID, SPLITS, find_splits, split_path

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "autoencoder"


@dataclass(frozen=True)
class TrainingConfig:
    """A YAML file of `scripts/train.py` that trains a `LatentAutoencoder`: arguments of its three parts.

    `data_flag` is what flags of the data module's arguments begin with.
    """

    path: Path
    text: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    trainer: Mapping[str, Any]
    is_graph: bool
    data_flag: str


def find_config(task: str, data: Path, given: Path | None) -> Path:
    """Return the configuration of a task, one of whose files is `data`: given, its own, that of all grids."""
    own, shared = CONFIGS / f"{task}.yaml", CONFIGS / "grid.yaml"
    if given is not None or own.is_file():
        return given or own
    if data.suffix == GRID and shared.is_file():
        return shared
    raise ValueError(f"no {own}, which {data} needs; give a configuration by --config")


def read_config(path: Path) -> TrainingConfig:
    """Read a configuration.

    Raises:
        ValueError: It cannot be read, or its model or data are not those of an autoencoder.
    """
    text = path.read_bytes()
    try:
        values = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise ValueError("it holds no sections model, data, trainer")
        sections = [values.get(name) or {} for name in ("model", "data", "trainer")]
        classes = [_class(path, section.get("class_path")) for section in sections]
        if not issubclass(classes[0], LatentAutoencoderTask):
            raise ValueError("let its model have class_path: gust_torch.LatentAutoencoderTask")
        named = classes[1] is not object
        if named and not issubclass(classes[1], (FieldDataModule, GraphDataModule)):
            raise ValueError("let its data be a FieldDataModule (grids) or a GraphDataModule")
        return TrainingConfig(
            path=path,
            text=text.decode(),
            model=sections[0].get("init_args") or {},
            data=(sections[1].get("init_args") or {}) if named else sections[1],
            trainer=sections[2],
            is_graph=issubclass(classes[1], GraphDataModule),
            data_flag="--data.init_args" if named else "--data",
        )
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, ImportError, RecursionError) as error:
        raise ValueError(f"{path} trains no autoencoder: {error}; correct it") from error


def _class(path: Path, name: str | None) -> type:
    """Return the class that a section names, `object` where it names none."""
    if name is None:
        return object
    check_import(name, source=str(path))
    found: type = pkgutil.resolve_name(name)
    return found


def latent_sizes(request: Request) -> dict[str, int]:
    """Return those of --latent-dim and --latent-len that were given."""
    sizes = {"latent_dim": request.latent_dim, "latent_len": request.latent_len}
    return {name: size for name, size in sizes.items() if size is not None}


@dataclass(frozen=True)
class TaskData:
    """Files (split -> path, of those that there are) and configuration of a task such as "burgers1d"."""

    task: str
    paths: Mapping[str, Path]
    config: TrainingConfig

    def frames(self, split: str, spec: FieldSpec | GraphSpec) -> FrameSource:
        """Return what an encoder with this spec encodes.

        Raises:
            ValueError: The data cannot be read, or are not such as the encoder was made for.
        """
        path = self.paths[split]
        if path.suffix == GRID:
            return GridFrames(open_grid(path, spec))
        if not isinstance(spec, GraphSpec):
            raise ValueError(f"{path} holds graphs, the autoencoder was trained on grids; give one of graphs")
        dataset = self._graphs[0].dataset(split)  # type: ignore[arg-type]
        frames = GraphFrames(dataset, spec)
        found = graph_spec(dataset[0], list(spec.fields))
        require_spec(path, spec, found)
        return frames

    def untrained_encoder(self, request: Request) -> LatentAutoencoder:
        """Return an autoencoder with random weights and the statistics of the training split.

        The seed, the configuration and the training data decide every bit of it; no global random state does.

        Raises:
            ValueError: Configuration and data do not fit together.
        """
        if self.config.is_graph:
            module = self._graphs[0]
            spec: FieldSpec | GraphSpec = module.spec
            found = module.statistics()
            mean, std = found.mean, found.std
        else:
            dataset = HDF5Dataset(self.paths["train"], fields=self.config.data.get("fields"))
            spec, (mean, std) = dataset.spec, dataset.statistics()
        known = inspect.signature(LatentAutoencoder).parameters
        architecture = {name: int(value) for name, value in self.config.model.items() if name in known}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(request.seed or 0)
            model = LatentAutoencoder(spec, **{**architecture, **latent_sizes(request)})
        model.set_statistics(mean, std)
        if self.config.is_graph:
            model.unit.set(found.lower, found.upper)
        return model.eval()

    @property
    def options(self) -> dict[str, object]:
        """What of the configuration changes an encoder's input, beside its own fields; plain values."""
        if not self.config.is_graph:
            return {}
        return {name: self._graphs[1][name] for name in ("kind", "group", "transform")}

    @cached_property
    def _graphs(self) -> tuple[GraphDataModule, dict[str, Any]]:
        """The configuration's data module with our paths, and its arguments with all defaults."""
        restrict_imports()
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(GraphDataModule, "data")
        paths = {f"{split}_path": str(self.paths[split]) if split in self.paths else None for split in SPLITS}
        paths["train_path"] = paths["train_path"] or ""  # an encoder that is there needs no training data
        try:
            parsed = parser.parse_object({"data": {**self.config.data, **paths}})
        except ArgumentError as error:
            raise ValueError(f"{self.config.path}: {error}") from error
        return parser.instantiate_classes(parsed).data, parsed.as_dict()["data"]


def find_data(request: Request) -> list[TaskData]:
    """Find the files and configurations of all tasks before any work starts.

    Raises:
        ValueError: A file or a configuration is missing, with all missing files at once.
    """
    found = {task: find_splits(request.root, task) for task in request.tasks}
    missing = []
    for task, paths in found.items():
        suffix = GRAPHS if task in GRAPH_TASKS else next((path.suffix for path in paths.values()), GRID)
        needed = set(request.splits)
        if request.checkpoint is None:
            needed.add("train")
            if suffix == GRAPHS and not request.untrained:
                needed.add("val")  # trainings on grids validate on a part of the training file
        splits = [split for split in SPLITS if split in needed and split not in paths]
        missing += [str(split_path(request.root, task, split, suffix)) for split in splits]
    if missing:
        raise ValueError(
            f"missing {', '.join(missing)}; convert (scripts/convert_pdebench_multimodal.py) or fetch "
            "(scripts/fetch_datasets.py) the tasks first, change --root, leave splits out by --splits (few "
            "trajectories give no such split), or give --checkpoint where only the encoder needs them"
        )
    configs = {
        task: find_config(task, next(iter(paths.values())), request.config) for task, paths in found.items()
    }
    return [TaskData(task, paths, read_config(configs[task])) for task, paths in found.items()]
