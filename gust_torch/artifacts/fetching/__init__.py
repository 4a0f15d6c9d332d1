"""From the registry to files below a root: download, check, unpack, and only what is missing."""

from gust_torch.artifacts.fetching.fetch_datasets import Fetched, Source, fetch

__all__ = ["Fetched", "Source", "fetch"]
