"""Scores and figures of a trained tokenizer; ``python -m gust_torch.analyze_reconstruction``."""

from gust_torch.analysis.output import write_analysis
from gust_torch.analysis.passes import Analysis, analyze
from gust_torch.analysis.report import summarize

__all__ = ["Analysis", "analyze", "summarize", "write_analysis"]
