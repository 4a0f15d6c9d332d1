"""Importing the package is cheap; its public names are there."""

import subprocess
import sys
from pathlib import Path

import pytest

import gust_torch

ROOT = Path(__file__).resolve().parents[1]


def test_import_loads_neither_torch_nor_anything_heavy() -> None:
    code = "import sys, gust_torch; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert "gust_torch" in loaded
    assert not loaded & {"torch", "lightning", "numpy", "h5py", "matplotlib", "scipy"}


def test_datasets_do_not_load_lightning() -> None:
    code = "import sys; from gust_torch import HDF5Dataset; print('lightning' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_public_names_exist() -> None:
    assert dir(gust_torch) == sorted(gust_torch.__all__)
    for name in gust_torch.__all__:
        assert getattr(gust_torch, name).__name__ == name


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        gust_torch.nothing  # noqa: B018
