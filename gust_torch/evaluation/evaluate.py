"""From a checkpoint and a data file to a folder of figures and numbers."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gust_torch.analysis.analyze import choose_device
from gust_torch.checkpoint import load_identity, load_model
from gust_torch.evaluation.command import Options
from gust_torch.evaluation.figures import curves_figure, rollout_figure
from gust_torch.evaluation.notes import extrapolation_notes, known_data_notes, score_notes
from gust_torch.evaluation.report import summarize, table
from gust_torch.evaluation.rollout import Example, make_example, mean_squares, roll_out
from gust_torch.evaluation.schedule import Schedule, Settings, make_schedule
from gust_torch.evaluation.scores import Scores
from gust_torch.evaluation.source import open_source, rollout_parameters
from gust_torch.figures import write_results
from gust_torch.latents.frames import FrameSource
from gust_torch.models.latent_operator import LatentOperator
from solvers.common.files import file_sha256
from solvers.common.progress import Progress
from solvers.common.provenance import provenance
from solvers.common.urls import redact


class Evaluation(NamedTuple):
    """Errors of all rollouts, and fields of the one with the median error."""

    scores: Scores
    example: Example


def evaluate_checkpoint(options: Options) -> str:
    """Roll a checkpoint's operator out on some data, write figures and numbers, and return a text for people.

    Raises:
        ValueError: A file that can't be used, data that the operator does not take, no such device.
    """
    checkpoint, data_path = options.checkpoint, options.data_path
    device = choose_device(options.accelerator)
    operator = load_model(checkpoint, LatentOperator, device=device)
    checkpoint_sha256 = file_sha256(Path(checkpoint))  # now: a training that goes on replaces the file
    source = open_source(data_path, operator)
    schedule = make_schedule(source.trajectories, source.times, options, data_path)
    parameters = rollout_parameters(source, schedule, operator, data_path).to(device)
    about_data = [
        *known_data_notes(data_path, source, load_identity(checkpoint)),
        *extrapolation_notes(schedule, parameters, source, operator),
    ]
    # Before the rollouts, not after them: a folder that cannot be made would waste them.
    options.output_dir.mkdir(parents=True, exist_ok=True)
    num_frames = int((schedule.samples >= 0).sum())
    with Progress(num_frames, unit="frame", description="evaluation") as progress:
        scores, example = evaluate(
            operator, source, schedule, parameters, options.batch_size, progress.update
        )
    spec, names = operator.spec, operator.spec.names
    notes = [redact(line) for line in (*about_data, *score_notes(scores, names))]
    metrics: dict[str, object] = {
        "checkpoint": redact(checkpoint),
        "checkpoint_sha256": checkpoint_sha256,
        "data_path": redact(data_path),
        "settings": {setting.name: getattr(options, setting.name) for setting in fields(Settings)},
        "device": device.type,
        "torch_version": str(torch.__version__),
        **provenance(),
        **summarize(scores, names),
        "notes": notes,
        "example_trajectory": example.trajectory,
        "spec": spec.to_dict(),
        "parameter_names": list(operator.parameter_names),
        "architecture": operator.architecture(),
    }
    figures = {
        "rollout.png": curves_figure(scores, spec),
        "rollout_fields.png": rollout_figure(example, spec),
    }
    files = write_results(options.output_dir, figures, metrics)
    return "\n".join([table(scores, names), *notes, *map(str, files)])


@torch.inference_mode()
def evaluate(
    operator: LatentOperator,
    source: FrameSource,
    schedule: Schedule,
    parameters: Tensor,
    batch_size: int = Settings.batch_size,
    on_frames: Callable[[int], None] = lambda frames: None,
) -> Evaluation:
    """Score all rollouts of a schedule, `batch_size` at once; `on_frames` gets the number of frames done.

    The operator is in evaluation mode, parameters (rollouts, p) are on its device.
    """
    scores = Scores(schedule, operator.spec.num_channels)
    for first in range(0, len(schedule.samples), batch_size):
        steps = roll_out(operator, source, schedule, slice(first, first + batch_size), parameters)
        for lead, (points, estimates) in enumerate(steps):
            if lead > 0:
                scores.add(first, lead, mean_squares(points, estimates, operator.spec))
            on_frames(points.num_samples)
    return Evaluation(scores, make_example(operator, source, schedule, scores.median_rollout(), parameters))
