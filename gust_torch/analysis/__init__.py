"""Scores and figures of a trained tokenizer; ``python -m gust_torch.analyze_reconstruction``."""
