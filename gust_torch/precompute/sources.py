"""The data of a task: which files there are, and how they become input of an encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import Tensor

from gust_torch.convert.graphs import GRAPH_TASKS
from gust_torch.data.graphs.datamodule import GraphDataModule
from gust_torch.data.graphs.statistics import graph_spec
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.frames import FrameSource, GraphFrames, GridFrames, find_task_file, open_grid
from gust_torch.precompute.config import TrainingConfig, find_config, read_config
from gust_torch.precompute.options import SPLITS, Request
from gust_torch.spec import FieldSpec


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
    found = {task: _paths(request.root, task) for task in request.tasks}
    missing = [
        (task, split)
        for task, paths in found.items()
        for split in _needed_splits(request, found[task])
        if split not in paths
    ]
    if missing:
        raise ValueError(_missing(request, found, missing))
    return {
        task: TaskData(
            task, paths, read_config(find_config(task, next(iter(paths.values())), request.config))
        )
        for task, paths in found.items()
    }


def _paths(root: Path, task: str) -> dict[str, Path]:
    """Files of the splits that are there."""
    paths = {}
    for split in SPLITS:
        if any((root / f"{task}_{split}{suffix}").exists() for suffix in (".h5", ".zarr")):
            paths[split] = find_task_file(root, task, split)
    return paths


def _needed_splits(request: Request, paths: Mapping[str, Path]) -> list[str]:
    """Split to encode, and those that the encoder is made from."""
    if request.checkpoint is not None:
        return list(request.splits)
    needed = {*request.splits, "train"}
    if not request.untrained and any(path.suffix == ".zarr" for path in paths.values()):
        needed.add("val")  # trainings on grids validate on a part of the training file
    return [split for split in SPLITS if split in needed]


def _missing(
    request: Request, found: Mapping[str, Mapping[str, Path]], missing: list[tuple[str, str]]
) -> str:
    """One line about missing files, with what to do."""
    names = [str(request.root / f"{t}_{s}{'.zarr' if t in GRAPH_TASKS else '.h5'}") for t, s in missing]
    text = f"missing {', '.join(names)}"
    if any(not found[task] for task, _ in missing):
        return (
            f"{text}; convert the tasks first (scripts/convert_pdebench_multimodal.py), fetch them "
            "(scripts/fetch_datasets.py), or change --root"
        )
    left = [split for split in request.splits if all(split != s for _, s in missing)]
    unasked = sorted({split for _, split in missing if split not in request.splits})
    if unasked:
        return (
            f"{text}, which the encoder is made from; convert with a {unasked[0]} split or give --checkpoint"
        )
    remedy = f"leave it out by --splits {' '.join(left)}, or " if left else ""
    return f"{text}: few trajectories give no such split; {remedy}convert more of them or with other --splits"


def _describe(spec: GraphSpec) -> str:
    motion = "moving" if spec.moving else "resting"
    return f"{', '.join(spec.names)} on {motion} {spec.num_dims}-D graphs"
