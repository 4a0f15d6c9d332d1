"""From a checkpoint and a data file to a folder of figures and numbers."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from gust_torch.analysis.analyze import choose_device
from gust_torch.analysis.output import write_json
from gust_torch.checkpoint import load_identity, load_model
from gust_torch.evaluation.figures import curves_figure, rollout_figure
from gust_torch.evaluation.report import notes, summarize, table
from gust_torch.evaluation.rollout import Example, make_example, mean_squares, roll_out
from gust_torch.evaluation.schedule import Schedule, Settings, make_schedule
from gust_torch.evaluation.scores import Scores
from gust_torch.evaluation.source import (
    Reference,
    extrapolation_notes,
    known_data_notes,
    open_reference,
    open_source,
    rollout_parameters,
)
from gust_torch.figures import save_figures
from gust_torch.models.latent_operator import LatentOperator
from solvers.common.files import file_sha256
from solvers.common.progress import Progress
from solvers.common.provenance import provenance
from solvers.common.urls import redact


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation finds.

    Attributes:
        scores: Errors of all rollouts.
        example: The rollout with the median error.
    """

    scores: Scores
    example: Example


def evaluate_checkpoint(
    checkpoint: str, data_path: str, output_dir: Path, settings: Settings, *, accelerator: str = "auto"
) -> str:
    """Roll a checkpoint's operator out on some data, and write all figures and numbers.

    Args:
        checkpoint: Checkpoint of a `LatentOperator`; it holds the autoencoder too.
        data_path: A grid file, or a store of particles.
        output_dir: Created if missing; older results in it are replaced.
        settings: What to roll out.
        accelerator: auto, cpu, gpu (cuda), or mps.

    Returns:
        The errors, what they do not show, and the files written, for people.

    Raises:
        ValueError: A file that can't be used, data that the operator does not take, no such device.
    """
    device = choose_device(accelerator)
    operator = load_model(checkpoint, LatentOperator, device=device)
    checkpoint_sha256 = file_sha256(Path(checkpoint))  # now: a training that goes on replaces the file
    source = open_source(data_path, operator)
    schedule = make_schedule(source.trajectories, source.times, settings, data_path)
    parameters = rollout_parameters(source, schedule, operator, data_path).to(device)
    reference = open_reference(source, operator.autoencoder)
    about_data = [
        *known_data_notes(data_path, source, load_identity(checkpoint)),
        *extrapolation_notes(schedule, parameters, source, operator),
    ]
    # Before the rollouts, not after them: a folder that cannot be made would waste them.
    output_dir.mkdir(parents=True, exist_ok=True)
    with Progress(schedule.num_frames, unit="frame", description="evaluation") as progress:
        evaluation = evaluate(
            operator,
            reference,
            schedule,
            parameters,
            batch_size=settings.batch_size,
            on_frames=progress.update,
        )
    names = operator.spec.names
    lines = [redact(line) for line in (*about_data, *notes(evaluation.scores, names))]
    metrics: dict[str, object] = {
        "checkpoint": redact(str(checkpoint)),
        "checkpoint_sha256": checkpoint_sha256,
        "data_path": redact(data_path),
        "settings": asdict(settings),
        "device": device.type,
        "torch_version": str(torch.__version__),
        **provenance(),
        **summarize(evaluation.scores, names),
        "notes": lines,
        "example_trajectory": evaluation.example.trajectory,
        "spec": operator.spec.to_dict(),
        "parameter_names": list(operator.parameter_names),
        "architecture": operator.architecture(),
    }
    figures = {
        "rollout.png": curves_figure(evaluation.scores, operator.spec),
        "rollout_fields.png": rollout_figure(evaluation.example, operator.spec),
    }
    written = [*save_figures(figures, metrics, output_dir), write_json(metrics, output_dir)]
    return "\n".join([table(evaluation.scores, names), *lines, *map(str, written)])


@torch.inference_mode()
def evaluate(
    operator: LatentOperator,
    reference: Reference,
    schedule: Schedule,
    parameters: Tensor,
    *,
    batch_size: int = Settings.batch_size,
    on_frames: Callable[[int], None] = lambda frames: None,
) -> Evaluation:
    """Score all rollouts of a schedule.

    Args:
        operator: In evaluation mode.
        reference: True frames.
        schedule: Which rollouts.
        parameters: (rollouts, p) on the operator's device.
        batch_size: Rollouts at once.
        on_frames: Called with the number of frames of each step.
    """
    scores = Scores(schedule, operator.spec.num_channels)
    first = 0
    for batch in schedule.batches(batch_size):
        own = parameters[first : first + len(batch)]
        for step in roll_out(operator, reference, batch, own):
            if step.lead > 0:
                scores.add(first, step.lead, mean_squares(step, operator.spec))
            on_frames(step.reference.num_samples)
        first += len(batch)
    row = scores.median_rollout()
    example = make_example(operator, reference, schedule.rollouts[row], parameters[row : row + 1])
    return Evaluation(scores, example)
