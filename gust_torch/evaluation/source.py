"""Opens the data of an evaluation and finds the parameters that an operator needs among them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gust_torch.data.graphs.datasets import ParticleZarrDataset
from gust_torch.data.graphs.schema import MESH
from gust_torch.evaluation.schedule import Schedule
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.frames import FrameSource, GraphFrames, GridFrames, open_grid
from gust_torch.models.latent_operator import LatentOperator


def open_source(path: str, operator: LatentOperator) -> FrameSource:
    """Frames of a grid file or particle store, checked against the operator's fields.

    Raises:
        ValueError: The data cannot be read, are of another kind or on another grid, or do not move.
    """
    spec = operator.spec
    if isinstance(spec, GraphSpec) and not spec.moving:
        raise ValueError(
            "the operator was trained on meshes, whose fields are steady: there is nothing to roll out; give "
            "the checkpoint of one for grids or particles"
        )
    if not (Path(path).is_dir() or path.endswith(".zarr")):
        return GridFrames(open_grid(path, spec))
    if not isinstance(spec, GraphSpec):
        raise ValueError(f"{path} is a store of graphs, the operator was trained on grids; give an .h5 file")
    if (Path(path) / MESH.group).is_dir():
        raise ValueError(
            f"{path} holds meshes, whose fields are steady: there is nothing to roll out; give particles"
        )
    return GraphFrames(ParticleZarrDataset(path), spec)


def rollout_parameters(
    source: FrameSource, schedule: Schedule, operator: LatentOperator, where: str
) -> Tensor:
    """Physical parameters (rollouts, p) float32 in the operator's order.

    Args:
        source: The data.
        schedule: Whose trajectories.
        operator: Names the parameters.
        where: The data, for messages.

    Raises:
        ValueError: The data lack a parameter, or a value of it.
    """
    names = operator.parameter_names
    missing = [name for name in names if name not in source.parameters]
    if missing:
        raise ValueError(
            f"{where} has no parameter {', '.join(missing)}, which the operator was trained with; it has "
            f"{', '.join(source.parameters) or 'none'}: convert the data again, or train on data like these"
        )
    trajectories = [rollout.trajectory for rollout in schedule.rollouts]
    values = np.array([source.parameters[name][trajectories] for name in names]).T
    values = values.reshape(len(trajectories), len(names))
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(
            f"{where}: parameter {names[column]} of trajectory {trajectories[row]} is {values[row, column]}; "
            "convert the data again, or leave them out by --limit"
        )
    is_log = operator.condition_log[1:].cpu().numpy()
    if (values[:, is_log] <= 0).any():
        row, column = np.argwhere((values <= 0) & is_log)[0].tolist()
        raise ValueError(
            f"{where}: parameter {names[column]} of trajectory {trajectories[row]} is "
            f"{values[row, column]:g}, the operator was trained on positive values over more than a decade "
            "and takes the logarithm; leave it out by --limit"
        )
    return torch.from_numpy(values).float()


def time_step_note(schedule: Schedule, operator: LatentOperator) -> list[str]:
    """Return a line where the data's steps are not those that the operator was trained with, to a
    thousandth."""
    steps = np.concatenate([np.diff(rollout.times) for rollout in schedule.rollouts])
    low, high = operator.time_step_range.tolist()
    if steps.min() >= 0.999 * low and steps.max() <= 1.001 * high:
        return []
    return [
        f"time steps of {steps.min():.4g} to {steps.max():.4g} lie beyond those that the operator was "
        f"trained with, {low:.4g} to {high:.4g}"
    ]
