"""Scores and figures of a trained tokenizer; ``python -m gust_torch.analyze_reconstruction``."""

from typing import TYPE_CHECKING

from gust_torch._lazy import lazy_exports

if TYPE_CHECKING:
    from gust_torch.analysis.command import analyze_checkpoint
    from gust_torch.analysis.output import write_analysis
    from gust_torch.analysis.passes import Analysis, analyze
    from gust_torch.analysis.report import summarize

__all__ = ["Analysis", "analyze", "analyze_checkpoint", "summarize", "write_analysis"]

# `--help` should wait for neither torch nor matplotlib.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Analysis": "gust_torch.analysis.passes",
        "analyze": "gust_torch.analysis.passes",
        "analyze_checkpoint": "gust_torch.analysis.command",
        "summarize": "gust_torch.analysis.report",
        "write_analysis": "gust_torch.analysis.output",
    },
)
