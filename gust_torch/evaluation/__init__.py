"""How well a latent operator predicts: errors of its rollouts over lead time; ``scripts/evaluate.py``."""

from typing import TYPE_CHECKING

from gust_torch._lazy import lazy_exports

if TYPE_CHECKING:
    from gust_torch.evaluation.command import Evaluation, evaluate, evaluate_checkpoint
    from gust_torch.evaluation.rollout import Step, roll_out
    from gust_torch.evaluation.schedule import Schedule, Settings, make_schedule
    from gust_torch.evaluation.scores import Scores

__all__ = [
    "Evaluation",
    "Schedule",
    "Scores",
    "Settings",
    "Step",
    "evaluate",
    "evaluate_checkpoint",
    "make_schedule",
    "roll_out",
]

# `--help` should wait for neither torch nor matplotlib.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Evaluation": "gust_torch.evaluation.command",
        "Schedule": "gust_torch.evaluation.schedule",
        "Scores": "gust_torch.evaluation.scores",
        "Settings": "gust_torch.evaluation.schedule",
        "Step": "gust_torch.evaluation.rollout",
        "evaluate": "gust_torch.evaluation.command",
        "evaluate_checkpoint": "gust_torch.evaluation.command",
        "make_schedule": "gust_torch.evaluation.schedule",
        "roll_out": "gust_torch.evaluation.rollout",
    },
)
