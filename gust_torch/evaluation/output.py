"""Write an evaluation: two figures and ``metrics.json``."""

from collections.abc import Mapping
from pathlib import Path

from gust_torch.analysis.output import write_figures, write_json
from gust_torch.evaluation.curves_figure import curves_figure
from gust_torch.evaluation.example import Example
from gust_torch.evaluation.fields_figure import rollout_figure
from gust_torch.evaluation.scores import Scores
from gust_torch.models.points import Spec


def write_evaluation(
    scores: Scores, example: Example, spec: Spec, metrics: Mapping[str, object], output_dir: Path
) -> list[Path]:
    """Write both figures, then ``metrics.json``; each replaces an older one at once.

    Args:
        scores: Errors of all rollouts.
        example: The rollout to show.
        spec: Of the data.
        metrics: The whole content of ``metrics.json``.
        output_dir: Created if missing.

    Returns:
        The files written.
    """
    figures = {
        "rollout.png": curves_figure(scores, spec),
        "rollout_fields.png": rollout_figure(example, spec),
    }
    return [*write_figures(figures, metrics, output_dir), write_json(metrics, output_dir)]
