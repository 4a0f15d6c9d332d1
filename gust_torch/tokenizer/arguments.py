"""Flags that the commands on a checkpoint and its data share; imports neither torch nor Lightning."""

from __future__ import annotations

import argparse

from gust_torch.tokenizer.options import DataSelection

__all__ = ["add_data_arguments", "data_selection"]


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a checkpoint and of the samples to read; `data_selection` takes the latter."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="MODEL.ckpt", help="checkpoint of scripts/train.py")
    add(
        "--data_path",
        required=True,
        nargs="+",
        metavar="DATA.h5",
        help="files in the common format, or a glob",
    )
    add("--fields", nargs="+", help="field names (default: those of the checkpoint)")
    add("--sample_start", type=int, default=DataSelection.sample_start, help="first sample (default 0)")
    add("--sample_stop", type=int, help="one past the last sample (default: the end)")


def data_selection(arguments: argparse.Namespace) -> DataSelection:
    """Return the samples that the flags of `add_data_arguments` name."""
    # "[buoyancy,vorticity]", as scripts/train.py takes it, and "buoyancy vorticity" mean the same.
    fields = arguments.fields and " ".join(arguments.fields).strip("[]").replace(",", " ").split()
    return DataSelection(
        arguments.data_path,
        fields=fields,
        sample_start=arguments.sample_start,
        sample_stop=arguments.sample_stop,
    )
