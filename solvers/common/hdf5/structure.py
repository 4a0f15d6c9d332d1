"""What each path in a file of the common format must be: one table for all who read such files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from solvers.common.hdf5 import schema

logger = logging.getLogger(__name__)

NUMBERS = "fiub"
"""Kinds of NumPy types that can be read as real numbers."""
TRIVIAL = {"scale_factor": 1.0, "add_offset": 0.0}
"""Attributes of the CF conventions that change values, and what they are where they don't."""
FILLS = ("_FillValue", "missing_value")
"""Attributes that name the value of missing cells."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """What one path must be.

    Attributes:
        group: Whether it is a group; else a dataset.
        shape: Its shape in words.
        ranks: The numbers of axes that can be read.
        kinds: Kinds of NumPy types that can be read.
        dtype: The type that the format prescribes.
        remedy: What to do about something else.
    """

    group: bool = False
    shape: str = ""
    ranks: tuple[int, ...] = ()
    kinds: str = NUMBERS
    dtype: np.dtype[Any] = schema.TIME_DTYPE
    remedy: str = "correct it, or write the file again"


DAMAGED = "the file is truncated or damaged: copy, download or write it again"
_EXTERNAL = "copy the data into this file, or say allow_external=True if you trust where it leads"
_ALONG = "a grid of positions along each axis is 1-D: of a meshgrid take x[:, 0] and y[0]"
RULES = {
    schema.FIELDS: Rule(group=True),
    f"{schema.FIELDS}/*": Rule(
        shape="(n_samples, H, W) or (n_samples, H, W, C)",
        ranks=(3, 4),
        dtype=schema.FIELD_DTYPE,
        remedy="leave it out (`fields` names those to read), or convert the file",
    ),
    schema.COORDINATES: Rule(group=True),
    schema.X: Rule(shape="(H,)", ranks=(1,), dtype=schema.FIELD_DTYPE, remedy=_ALONG),
    schema.Y: Rule(shape="(W,)", ranks=(1,), dtype=schema.FIELD_DTYPE, remedy=_ALONG),
    schema.TIME: Rule(shape="(n_samples,)", ranks=(1,)),
    schema.TRAJECTORY: Rule(shape="(n_samples,)", ranks=(1,), dtype=schema.TRAJECTORY_DTYPE),
    schema.PARAMETERS: Rule(group=True),
    f"{schema.PARAMETERS}/*": Rule(shape="(n_trajectories,)", ranks=(0, 1)),
    schema.SCALARS: Rule(group=True),
    f"{schema.SCALARS}/*": Rule(shape="(n_samples,)", ranks=(1,)),
    schema.METADATA: Rule(group=True),
}


def rule_of(name: str) -> Rule:
    """Return what the table says of a path ("fields/omega")."""
    return RULES.get(name) or RULES[f"{name.partition('/')[0]}/*"]


class Contents:
    """The objects of a file by path: each is opened once and is what the table says, or a ValueError tells.

    Args:
        file: Open for reading.
        path: Its path as messages name it.
        allow_external: Follow external links, and read external storage: any file that they name.
    """

    def __init__(self, file: h5py.File, path: str, *, allow_external: bool = False) -> None:
        self.file, self.path = file, path
        self.allow_external = allow_external
        try:
            self._own = _file_number(file.id)
        except RuntimeError as error:
            raise ValueError(f"{path}: HDF5 cannot read it ({error}); {DAMAGED}") from error
        self._found: dict[str, Any] = {}

    def group(self, name: str) -> h5py.Group | None:
        """Return a group of the table; None where there is none."""
        return self._look(name, RULES[name])

    def dataset(self, name: str) -> h5py.Dataset | None:
        """Return a dataset of the table ("coordinates/x", "fields/omega"); None where there is none."""
        return None if self.group(name.partition("/")[0]) is None else self._look(name, rule_of(name))

    def look(self, name: str, rule: Rule) -> Any:
        """Return what is at a path, which need not be one of the table; None where there is nothing."""
        folders = name.split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            if self._look("/".join(folders[:depth]), Rule(group=True)) is None:
                return None
        return self._look(name, rule)

    def names(self, group: str) -> list[str]:
        """Return the names in a group, whatever they are; [] where there is no such group."""
        found = self.group(group)
        return [] if found is None else list(found)

    def readable(self, group: str) -> dict[str, h5py.Dataset]:
        """Return the datasets of a group that the table knows and that can be read, by name."""
        found = {}
        for name in self.names(group):
            try:
                if group != schema.COORDINATES or f"{group}/{name}" in RULES:
                    found[name] = self.dataset(f"{group}/{name}")
            except ValueError as error:
                logger.debug("left out: %s", error)
        return {name: dataset for name, dataset in found.items() if dataset is not None}

    @property
    def metadata(self) -> dict[str, schema.MetadataValue]:
        """Attributes of /metadata as python values; those that cannot be read are left out."""
        values: dict[str, schema.MetadataValue] = {}
        if (group := self.group(schema.METADATA)) is None:
            return values
        for name in group.attrs:
            try:
                values[name] = schema.plain_value(group.attrs[name])
            except (OSError, RuntimeError, TypeError, ValueError) as error:
                logger.debug("%s: metadata %s is left out: %s", self.path, name, error)
        return values

    def metadata_value(self, name: str) -> schema.MetadataValue | None:
        """Return one attribute of /metadata; None where it is absent."""
        group = self.group(schema.METADATA)
        if group is None or not h5py.h5a.exists(group.id, name.encode()):
            return None
        return schema.plain_value(group.attrs[name])

    @property
    def is_growing(self) -> bool:
        """Whether a writer is at work, or was stopped at it: the file says that it is not complete."""
        value = self.metadata_value("complete")
        if isinstance(value, str):
            return value.lower() in ("false", "no", "0", "")
        return value is not None and not value

    def num_times(self) -> int | None:
        """Return how many times are committed; None where there is no dataset of them.

        Times at the end that a resumed run was about to drop are NaN and do not count.
        """
        if (time := self.dataset(schema.TIME)) is None:
            return None
        count = len(time)
        while count and self.is_growing and np.isnan(time[count - 1]):
            count -= 1
        return count

    def count(self, fields: Sequence[str], *, more: Sequence[str] = ()) -> int:
        """Return how many samples are complete in all of some fields, the time and the trajectory ids.

        Of a file that is not complete, the last ones may lack a part of their data and do not count.

        Args:
            fields: Names of fields.
            more: Full names of other datasets that grow.

        Raises:
            ValueError: The file claims to be complete, but its datasets have different lengths; or one
                cannot be read.
        """
        names = [*(f"{schema.FIELDS}/{name}" for name in fields), schema.TIME, schema.TRAJECTORY, *more]
        found = {name: self.dataset(name) for name in names}
        lengths = {name: int(item.shape[0]) for name, item in found.items() if item is not None}
        if len(set(lengths.values())) > 1 and not self.is_growing:
            shown = ", ".join(f"/{name} {length}" for name, length in lengths.items())
            remedy = "choose fields of one length, or write the file again"
            raise ValueError(f"{self.path}: different numbers of samples: {shown}; {remedy}")
        times = self.num_times()
        return min([*lengths.values(), *([] if times is None else [times])], default=0)

    def is_same(self, first: str, second: str) -> bool:
        """Whether two paths name one object (hard or soft links)."""
        return bool(self.dataset(first) == self.dataset(second))

    def _look(self, name: str, rule: Rule) -> Any:
        if name not in self._found:
            self._found[name] = self._checked(name, rule)
        return self._found[name]

    def _checked(self, name: str, rule: Rule) -> h5py.Group | h5py.Dataset | None:
        # h5py's low-level calls: its `file[name]` takes three times as long, which many files make felt.
        links, key, link = self.file.id.links, name.encode(), None
        wanted = "a group" if rule.group else f"a dataset {rule.shape}"
        try:
            if not links.exists(key):
                return None
            link = links.get_info(key).type
            if link == h5py.h5l.TYPE_EXTERNAL and not self.allow_external:
                raise self._error(name, wanted, f"a link to {self._target(name)}", _EXTERNAL)
            found = h5py.h5o.open(self.file.id, key)
        except (KeyError, OSError, RuntimeError, TypeError) as error:
            if link in (None, h5py.h5l.TYPE_HARD):
                reason = str(error).strip("'\"")
                raise ValueError(f"{self.path}: /{name}: cannot be read ({reason}); {DAMAGED}") from error
            nothing = f"a link to {self._target(name)}, where there is nothing"
            raise self._error(name, wanted, nothing, "put it there or remove the link") from error
        if link != h5py.h5l.TYPE_HARD and not self.allow_external and _file_number(found) != self._own:
            raise self._error(name, wanted, "a link to another file", _EXTERNAL)
        if not isinstance(found, h5py.h5g.GroupID if rule.group else h5py.h5d.DatasetID):
            kinds = {h5py.h5g.GroupID: "a group", h5py.h5d.DatasetID: "a dataset"}
            raise self._error(name, wanted, kinds.get(type(found), "a named type"), rule.remedy)
        if rule.group:
            return h5py.Group(found)
        self._check_dataset(name, dataset := h5py.Dataset(found), rule)
        return dataset

    def _check_dataset(self, name: str, dataset: h5py.Dataset, rule: Rule) -> None:
        shape = dataset.shape
        if shape is None or len(shape) not in rule.ranks:
            found = "no values at all (a null data space)" if shape is None else f"shape {shape}"
            raise self._error(name, rule.shape, found, rule.remedy)
        if dataset.dtype.kind not in rule.kinds:
            is_text = h5py.check_string_dtype(dataset.dtype) is not None or dataset.dtype.kind == "S"
            found = "text" if is_text else f"{'compound ' if dataset.dtype.names else ''}{dataset.dtype}"
            raise self._error(name, f"real numbers {rule.shape}", found, rule.remedy)
        if (code := schema.missing_filter(dataset)) is not None:
            text = f"it is compressed by HDF5 filter {code}, which is not installed; install hdf5plugin"
            raise ValueError(f"{self.path}: /{name}: {text}")
        for attribute, trivial in TRIVIAL.items() if h5py.h5a.get_num_attrs(dataset.id) else ():
            value = dataset.attrs.get(attribute, trivial)
            if not np.array_equal(np.ravel(value), [trivial]):
                found = f"the attribute {attribute} = {value}"
                raise self._error(name, "plain values", found, "unpack the values")

    def _target(self, name: str) -> str:
        link = self.file.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return f"{link.filename}:{link.path}"
        return str(getattr(link, "path", "nowhere"))

    def _error(self, name: str, wanted: str, found: str, remedy: str) -> ValueError:
        return ValueError(f"{self.path}: /{name}: expected {wanted}, found {found}; {remedy}")


def check_float32(values: np.ndarray, where: str) -> np.ndarray:
    """Return values as float32; a ValueError where some are finite but beyond it."""
    if values.dtype.kind != "f" or values.dtype.itemsize <= schema.FIELD_DTYPE.itemsize:
        return values.astype(schema.FIELD_DTYPE, copy=False)
    with np.errstate(over="ignore"):
        cast = values.astype(schema.FIELD_DTYPE)
    if (np.isinf(cast) & np.isfinite(values)).any():
        largest = np.abs(values[np.isfinite(values)]).max()
        raise ValueError(f"{where}: values up to {largest:.3g} are beyond float32; use other units")
    return cast


def fill_values(dataset: h5py.Dataset) -> list[float]:
    """Return what the attributes of a dataset say missing cells hold."""
    if not h5py.h5a.get_num_attrs(dataset.id):
        return []
    values = [np.ravel(dataset.attrs[name]) for name in FILLS if name in dataset.attrs]
    return [float(value) for value in np.concatenate([[], *(v for v in values if v.dtype.kind in NUMBERS)])]


def _file_number(item: h5py.h5g.GroupID) -> tuple[int, ...]:
    """Return what tells the files of a process apart."""
    return tuple(np.ravel(h5py.h5o.get_info(item).fileno).tolist())
