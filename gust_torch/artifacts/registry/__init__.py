"""The registry of packaged data sets; `python -m gust_torch.artifacts.registry check`."""

from gust_torch.artifacts.reference import expand_reference, is_url
from gust_torch.artifacts.registry.checks import KINDS, SPLITS
from gust_torch.artifacts.registry.entry import DatasetEntry
from gust_torch.artifacts.registry.file import DEFAULT_REGISTRY, Registry, check_registry, load_registry
from gust_torch.artifacts.registry.write import register

__all__ = [
    "DEFAULT_REGISTRY",
    "KINDS",
    "SPLITS",
    "DatasetEntry",
    "Registry",
    "check_registry",
    "expand_reference",
    "is_url",
    "load_registry",
    "register",
]
