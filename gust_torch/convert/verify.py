"""Compares converted files with their sources, bit for bit."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np

from gust_torch.convert.plan import Plan
from gust_torch.convert.reader import open_reader
from gust_torch.convert.routing import Part, route
from solvers.common.hdf5_utils import num_samples, open_file, validate
from solvers.common.progress import Progress

logger = logging.getLogger(__name__)


def verify(plan: Plan, paths: Mapping[str, Path]) -> None:
    """Re-reads sources and outputs and compares every value, time, id and parameter.

    float64 sources are compared after rounding to float32, which is what the format stores.

    Args:
        plan: The conversion.
        paths: Split name -> its output.

    Raises:
        ValueError: The first difference, or a violation of the common format.
    """
    for path in paths.values():
        if violations := validate(path):
            raise ValueError(f"{path}: {violations[0]}; convert again")
    with ExitStack() as stack:
        files = {split: stack.enter_context(open_file(path)) for split, path in paths.items()}
        progress = stack.enter_context(Progress(plan.num_frames, unit="frame", description="verify"))
        position = dict.fromkeys(files, 0)
        for index, source in enumerate(plan.sources):
            with open_reader(source) as reader:
                for block in reader.blocks():
                    for split, file in files.items():
                        if (part := route(plan, index, block, split)) is not None:
                            _compare(file, position[split], part, source.path)
                            position[split] += len(part.times)
                    progress.update(block.span.num_frames)
        for split, file in files.items():
            _compare_tables(plan, split, file, position[split])
    logger.info("verified: %d frames equal their sources bit for bit", plan.num_frames)


def _compare(file: h5py.File, start: int, part: Part, source: Path) -> None:
    """Compare frames [start, ...) of an output with what the source gives."""
    stop = start + len(part.times)
    expected = {f"fields/{name}": values for name, values in part.fields.items()}
    expected |= {"coordinates/time": part.times, "coordinates/trajectory": part.trajectories}
    for name, values in expected.items():
        stored = file[name][start:stop]
        # Bits, not values: -0.0 is not 0.0 here.
        if stored.dtype != values.dtype or stored.tobytes() != np.ascontiguousarray(values).tobytes():
            raise ValueError(
                f"{file.filename}: {name}, samples {start} to {stop - 1}, differs from {source}; "
                "convert again"
            )


def _compare_tables(plan: Plan, split: str, file: h5py.File, frames: int) -> None:
    """Compare the number of frames, the parameters and the origins."""
    stored = {
        "number of frames": num_samples(file),
        "parameters": {name: dataset[()].tolist() for name, dataset in file["parameters"].items()},
        "texts": {name: _text(file[name]) for name in plan.texts(split)},
    }
    expected = {"number of frames": frames, "parameters": plan.parameters(split), "texts": plan.texts(split)}
    for name, value in expected.items():
        if stored[name] != value:
            raise ValueError(f"{file.filename}: {name} differ from the sources; convert again")


def _text(dataset: h5py.Dataset) -> object:
    """Return a text dataset as str or list of str."""
    values = dataset.asstr()[()]
    return values.tolist() if isinstance(values, np.ndarray) else values
