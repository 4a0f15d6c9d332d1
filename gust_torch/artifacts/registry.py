"""The registry: which packaged data sets there are, where they lie, and what is wrong with that file.

python -m gust_torch.artifacts.registry check [FILE]
"""

import contextlib
import difflib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from gust_torch.artifacts.reference import reference_problem
from solvers.common.cli import parse, run_command
from solvers.common.files import WriterLock, written_aside
from solvers.common.splits import SPLITS

SHARED_REGISTRY = Path("docs/dataset_registry.yaml")
KINDS = ("grid", "mesh", "particles")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_MAX_DEPTH = 20
_DEEP = f"nested deeper than {_MAX_DEPTH} levels; flatten it"

log = logging.getLogger(__name__)

Keys = tuple[str | int, ...]  # the way to a value
Problem = tuple[Keys, str]  # and what is wrong with it


@dataclass(frozen=True)
class DatasetEntry:
    """A packaged data set and where it lies; a ValueError tells the first thing that is wrong.

    Attributes:
        name: Key in the registry.
        artifact: W&B reference `[entity/project/]name:version`, or a URL (`file:///...`, `s3://...`).
        kind: One of KINDS.
        splits: Split name -> member of the tarball, a file or the folder of a Zarr store.
        sha256: Hex digest of the tarball.
        size: Bytes of the tarball.
        unpacked: Bytes of the files in it.
        metadata: JSON-like values that describe the data.
    """

    name: str
    artifact: str
    kind: str
    splits: Mapping[str, str]
    sha256: str
    size: int
    unpacked: int
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for _, text in entry_problems(self.name, {key: getattr(self, key) for key in _WANTED}):
            raise ValueError(text)

    @property
    def task(self) -> str:
        """What the members are named for, `burgers1d` of `burgers1d_train.h5`; used in flags and paths."""
        split, member = next(iter(self.splits.items()))
        task, separator, _ = member.rpartition(f"_{split}.")
        if not separator or not NAME.fullmatch(task):
            raise ValueError(f"{self.name}: {member}: expected TASK_{split}.h5 or .zarr; rename it")
        return task

    def to_yaml(self, artifact: str | None = None) -> str:
        """Write the entry as it stands in the registry, a line a key; with another `artifact` where given."""
        values = {key: getattr(self, key) for key in _WANTED} | ({"artifact": artifact} if artifact else {})
        keys = [key for key in _WANTED if values[key] or key != "metadata"]
        return f"{_yaml(self.name)}:\n" + "".join(f"  {key}: {_yaml(values[key])}\n" for key in keys)


def _yaml(value: object) -> str:
    """Write a value on one line."""
    file = io.StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.allow_unicode = True, 1 << 30, True
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(value, file)
    return file.getvalue().removesuffix("...\n").rstrip("\n")


_SIZE = lambda value: type(value) is int and value > 0, "a number of bytes above 0, without quotes"
_MEMBER = re.compile(r"(?!\.)[^\x00-\x1f\x7f/\\:]+")  # cannot leave the folder that it is unpacked in
# Each key of an entry: what its value must be. YAML may take a digest of digits for a number.
_WANTED: dict[str, tuple[Callable[[Any], object], str]] = {
    "artifact": (lambda value: isinstance(value, str), "text such as entity/project/name:v0"),
    "kind": (lambda value: value in KINDS, f"one of {', '.join(KINDS)}"),
    "splits": (lambda value: isinstance(value, Mapping) and value, "a mapping, as {train: a_train.h5}"),
    "sha256": (
        lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value),
        "64 hexadecimal digits in lower case (quoted if all are 0 to 9)",
    ),
    "size": _SIZE,
    "unpacked": _SIZE,
    "metadata": (lambda value: isinstance(value, Mapping), "a mapping"),
}


def entry_problems(name: str, values: object) -> Iterator[Problem]:
    """Yield everything that is wrong with an entry: the keys below it, and one line with the remedy."""
    if not NAME.fullmatch(name):
        yield (), f"{name!r}: expected a name of letters, digits, '.', '_' and '-'; rename it"
    if not isinstance(values, Mapping):
        yield (), f"{name}: expected a mapping with {', '.join(_WANTED)}; found {_shown(values)}"
        return
    for key, value in values.items():
        if key not in _WANTED:
            yield (key,), f"{name}: unknown key {key!r}; known are {', '.join(_WANTED)}"
        elif not _WANTED[key][0](value):
            yield (key,), f"{name}: {key} is {_shown(value)}, expected {_WANTED[key][1]}"
        else:
            for below, text in _problems_below(key, value):
                yield (key, *below), f"{name}: {'/'.join(map(str, (key, *below)))} {text}"
    for key in _WANTED:
        if key not in values and key != "metadata":
            yield (), f"{name}: {key} is missing; scripts/package_dataset.py prints whole entries"


def _problems_below(key: str, value: Any) -> Iterator[Problem]:
    """Look into a value of the right type."""
    if key == "artifact" and (text := reference_problem(value)):
        yield (), text
    elif key == "metadata":
        yield from json_problems(value)
    elif key == "splits":
        owners: dict[str, str] = {}
        for split, member in value.items():
            if split not in SPLITS:
                yield (split,), f"is an unknown split, expected one of {', '.join(SPLITS)}"
            if not isinstance(member, str) or not _MEMBER.fullmatch(member):
                wanted = "the name of a file without folders, '\\' and ':', not beginning with '.'"
                yield (split,), f"is {_shown(member)}, expected {wanted}"
            elif (other := owners.setdefault(member.casefold(), split)) != split:
                yield (split,), f"is {member!r} as {other} is; give each split its own file"


def json_problems(value: Mapping[str, object]) -> Iterator[Problem]:
    """Yield keys whose values JSON cannot hold, because stores keep metadata as JSON."""
    for key, item in value.items():
        try:
            json.dumps(item, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            yield (key,), f"is {_shown(item)}, which JSON cannot hold ({error}); write text or numbers"


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text[:77]}..." if len(text) > 80 else text


def default_registry(folder: Path = SHARED_REGISTRY.parent) -> Path:
    """Name $GUST_REGISTRY, or else the registry in a folder: the project's, or one beside the data."""
    return Path(os.environ.get("GUST_REGISTRY") or folder / SHARED_REGISTRY.name)


def find_entries(names: Iterable[str], *, registry: Path | None, root: Path) -> list[DatasetEntry]:
    """Look data sets up, each once, however often its name comes.

    They are looked for in `registry`, or else in $GUST_REGISTRY, or else beside the data in `root` and then
    in the project's. A ValueError says that one is in none of them, or wrong; with the line.
    """
    defaults = [path for path in (default_registry(root), default_registry()) if path.exists()]
    paths = [registry] if registry else dict.fromkeys(defaults or [default_registry()])
    registries = [load_registry(path) for path in paths]
    entries = []
    for name in dict.fromkeys(names):
        holders = [item for item in registries if name in item.values] or registries[-1:]
        entries.append(holders[0][name])
        if any(other.values[name] != holders[0].values[name] for other in holders[1:]):
            log.warning("%s is not the same in %s; the first is used", name, " and ".join(map(str, paths)))
    return entries


@dataclass(frozen=True)
class Registry:
    """The data sets of a file; each is checked when it is asked for, so a wrong one stops no other.

    `lines` has the line, counted from 1, of the keys to each value in `values`.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[Keys, int]

    def __getitem__(self, name: str) -> DatasetEntry:
        """Give an entry; a ValueError says that there is none, or what is wrong with it, by line."""
        if name not in self.values:
            close = ", ".join(difflib.get_close_matches(name, self.values, n=3) or self.values) or "none"
            remedy = "scripts/package_dataset.py makes an entry, --registry names another file"
            raise ValueError(f"{self.path} has no data set {name!r}, it has {close}; {remedy}")
        if problems := self.problems(name):
            raise ValueError("; ".join(problems))
        return DatasetEntry(name=name, **self.values[name])

    def problems(self, *names: str) -> list[str]:
        """List what is wrong with entries, by default with all: "FILE:LINE: what", by line."""
        found = [
            (next(self.lines[(name, *keys)[:end]] for end in range(len(keys) + 1, 0, -1)), text)
            for name in names or self.values
            for keys, text in entry_problems(name, self.values[name])
        ]
        return [f"{self.path}:{line}: {text}" for line, text in sorted(found)]


def load_registry(path: str | Path) -> Registry:
    """Read a registry, whose entries may be wrong; a ValueError tells the line where it is no registry."""
    data = Path(path).read_bytes()
    if not data.strip():
        raise ValueError(f"{path}:1: empty, expected a mapping of data sets or comments; was it cut off?")
    return _read(Path(path), data)


def check_registry(path: str | Path) -> list[str]:
    """List every problem of a registry, "FILE:LINE: what is wrong", in the order of the lines."""
    try:
        return load_registry(path).problems()
    except ValueError as error:
        return [str(error)]


def _read(path: Path, data: bytes) -> Registry:
    """Understand a registry's bytes; raises ValueError with the line."""
    lines: dict[Keys, int] = {}
    text = data.decode("utf-8-sig", errors="replace")
    try:
        if "\ufffd" in text:
            raise ReaderError(path, text.index("\ufffd"), 0xFFFD, "utf-8", "expected UTF-8; save it as UTF-8")
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(text)
        values = _plain(node, (), lines, yaml.constructor.construct_object) if node else {}
    except (YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = (mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))) + 1
        what = _DEEP if isinstance(error, RecursionError) else getattr(error, "problem", None) or str(error)
        raise ValueError(f"{path}:{line}: not YAML: {what.splitlines()[0]}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        what = f"expected a mapping, name of a data set -> entry, found {_shown(values)}"
        raise ValueError(f"{path}:{lines[()]}: {what}")
    if isinstance(nested := values.get("datasets"), dict) and "artifact" not in nested:
        what = "data sets stand below 'datasets:', as UPS has it, expected them at the top"
        remedy = "write splits: {train: TASK_train.h5} for train_split:, and add sha256, size and unpacked"
        raise ValueError(f"{path}:{lines['datasets',]}: {what}; {remedy}")
    return Registry(path, values, lines)


def _plain(node: Node, keys: Keys, lines: dict[Keys, int], construct: Callable[[Node], Any]) -> Any:
    """Turn a node of YAML into plain values and note their lines; keys are text, whatever they look like."""
    lines.setdefault(keys, node.start_mark.line + 1)
    problem = _DEEP if len(keys) > _MAX_DEPTH else "aliases are not supported; write the values out"
    if node.anchor is None and len(keys) <= _MAX_DEPTH:
        if isinstance(node, SequenceNode):
            return [_plain(item, (*keys, i), lines, construct) for i, item in enumerate(node.value)]
        if isinstance(node, MappingNode):
            values: dict[str, Any] = {}
            for key, item in node.value:
                if not isinstance(key, ScalarNode) or key.value in values:
                    text = f"{_shown(key.value)} stands here again; keep one"
                    raise MarkedYAMLError(problem=text, problem_mark=key.start_mark)
                lines[(*keys, key.value)] = key.start_mark.line + 1
                values[key.value] = _plain(item, (*keys, key.value), lines, construct)
            return values
        try:
            return construct(node)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            problem = f"{node.value!r} is not a value ({error}); quote it"
    raise MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def register(path: str | Path, entry: DatasetEntry, *, overwrite: bool) -> bool:
    """Append an entry to a registry, or replace the one of the same name in its place.

    All other bytes stay; comments inside a replaced entry go with it. The file is checked before it gets its
    name. Tells whether it changed, which it does not where it has this very entry already.

    Raises:
        ValueError: A different entry of this name and no `overwrite`, or a registry that takes no entry.
        BlockingIOError: Another process is registering something.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with WriterLock(path):
        data = path.read_bytes() if path.exists() else b""
        old = _read(path, data)
        wanted = _read(path, entry.to_yaml().encode()).values
        there = old.values.get(entry.name)
        if isinstance(there, dict) and {"metadata": {}} | there == {"metadata": {}} | wanted[entry.name]:
            return False
        if entry.name in old.values and not overwrite:
            line = old.lines[entry.name,]
            raise ValueError(f"{path}:{line}: has another {entry.name!r}; give --overwrite to replace it")
        text = _spliced(data, old, entry)
        new = old
        with contextlib.suppress(ValueError):
            new = _read(path, text)
        if new.values != {**old.values, **wanted}:
            raise ValueError(f"{path}: the entry does not fit in here; add it by hand")
        for problem in new.problems():
            raise ValueError(f"{problem}: correct that first")
        with written_aside(path) as file:
            file.write(text)
    return True


def _spliced(data: bytes, old: Registry, entry: DatasetEntry) -> bytes:
    """Put the entry in its place, or at the end behind an empty line."""
    newline = b"\r\n" if b"\r\n" in data else b"\n"
    block = entry.to_yaml().encode().replace(b"\n", newline)
    if entry.name not in old.values:
        end = b"" if not data or data.endswith(b"\n") else newline
        gap = newline if data and not (data + end).endswith(newline * 2) else b""
        return data + end + gap + block
    lines = data.splitlines(keepends=True)
    start = old.lines[entry.name,] - 1
    later = (old.lines[name,] - 1 for name in old.values)
    stop = min((line for line in later if line > start), default=len(lines))
    while not lines[stop - 1].strip() or lines[stop - 1].lstrip().startswith(b"#"):
        stop -= 1  # what stands above the next entry is that one's
    return b"".join(lines[:start]) + block + b"".join(lines[stop:])


@dataclass(frozen=True)
class CheckOptions:
    """Which registry is checked."""

    command: Annotated[Literal["check"], tyro.conf.Positional]
    """What to do."""
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE]")] = field(
        default_factory=default_registry
    )
    """The registry."""


def main(arguments: Sequence[str] | None = None) -> int:
    """List everything that is wrong with a registry; exit code 1 if there is anything."""

    prog = "python -m gust_torch.artifacts.registry"

    def check() -> int:
        path = parse(CheckOptions, arguments, prog=prog, description=main.__doc__ or "").file
        if problems := check_registry(path):
            print("\n".join(problems), file=sys.stderr)
            return 1
        count = len(load_registry(path).values)
        print(f"{path}: {count} dataset{'' if count == 1 else 's'}, no problems")
        return 0

    return run_command(check)


if __name__ == "__main__":
    sys.exit(main())
