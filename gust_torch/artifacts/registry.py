"""The registry of packaged data sets: its public names, and a command line (check)."""

import sys

from gust_torch.artifacts.reference import expand_reference, is_url
from gust_torch.artifacts.registry_checks import KINDS, SPLITS
from gust_torch.artifacts.registry_cli import main
from gust_torch.artifacts.registry_entry import DatasetEntry
from gust_torch.artifacts.registry_file import DEFAULT_REGISTRY, Registry, check_registry, load_registry
from gust_torch.artifacts.registry_write import register

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

if __name__ == "__main__":
    sys.exit(main())
