"""The registry of packaged data sets; `python -m gust_torch.artifacts.registry check`."""
