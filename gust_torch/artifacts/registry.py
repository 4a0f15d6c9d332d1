"""The registry: which packaged data sets there are, where they lie, and what is wrong with that file.

    python -m gust_torch.artifacts.registry check [FILE]

Looked up are $GUST_REGISTRY where it is set, else the file beside the data and docs/dataset_registry.yaml.
"""

import difflib
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import tyro
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import Node

from gust_torch.artifacts.reference import reference_problem
from solvers.common.cli import parse, run_command
from solvers.common.files import WriterLock, written_aside
from solvers.common.splits import SPLITS

SHARED_REGISTRY = Path("docs/dataset_registry.yaml")
_PROG = "python -m gust_torch.artifacts.registry check"
KINDS = ("grid", "mesh", "particles")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_DEPTH = 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\:]")
_PLAIN = re.compile(r"[A-Za-z<]([A-Za-z0-9_.<>-]|[/:](?=[^ ]))*")  # text that YAML reads as it stands
_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")

log = logging.getLogger(__name__)

Problem = tuple[tuple[str | int, ...], str]  # the keys to a value, what is wrong with it


@dataclass(frozen=True)
class DatasetEntry:
    """A packaged data set and where it lies.

    Attributes:
        name: Key in the registry.
        artifact: W&B reference `[entity/project/]name:version`, or a URL (`file:///...`, `s3://...`).
        kind: One of KINDS.
        splits: Split name -> member of the tarball, a file or the folder of a Zarr store.
        sha256: Hex digest of the tarball.
        size: Bytes of the tarball.
        unpacked: Bytes of the files in it.
        metadata: JSON-like values that describe the data; `scripts/package_dataset.py` fills in samples,
            resolution, fields and parameters.
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
        """Raise ValueError with the first thing that is wrong."""
        for _, text in entry_problems(self.name, {key: getattr(self, key) for key in ENTRY_KEYS}):
            raise ValueError(text)

    @property
    def task(self) -> str:
        """What the members are named for, `burgers1d` of `burgers1d_train.h5`; it goes into flags and paths.

        Raises:
            ValueError: They are named otherwise, or with other characters than a data set may be.
        """
        split, member = next(iter(self.splits.items()))
        task, separator, _ = member.rpartition(f"_{split}.")
        if not separator or not NAME.fullmatch(task):
            raise ValueError(
                f"{self.name}: the {split} member is {member}, expected TASK_{split}.h5 or .zarr; rename it"
            )
        return task

    def to_yaml(self, artifact: str | None = None) -> str:
        """Write the entry as it stands in the registry, a line a key, ending in a newline.

        Args:
            artifact: Instead of its own, perhaps a placeholder.
        """
        values = {**{key: getattr(self, key) for key in ENTRY_KEYS}, "artifact": artifact or self.artifact}
        keys = [key for key in ENTRY_KEYS if values[key] or key != "metadata"]
        return f"{_yaml(self.name)}:\n" + "".join(f"  {key}: {_yaml(values[key])}\n" for key in keys)


ENTRY_KEYS = tuple(item.name for item in fields(DatasetEntry) if item.name != "name")


def _yaml(value: object, *, inside: bool = False) -> str:
    """Write a value on one line: as JSON, which is YAML, without quotes where they are not needed."""
    if isinstance(value, Mapping):
        items = [f"{_yaml(key, inside=True)}: {_yaml(item, inside=True)}" for key, item in value.items()]
        return f"{{{', '.join(items)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_yaml(item, inside=True) for item in value)}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return f'"{value}"' if inside and re.search("[:<>]", value) else value
    return json.dumps(value, ensure_ascii=not isinstance(value, str) or not value.isprintable())


def entry_problems(name: str, values: object) -> Iterator[Problem]:
    """Everything that is wrong with an entry.

    Args:
        name: Key in the registry.
        values: What stands under it.

    Yields:
        (keys below the entry, one line: what was expected, what came, what to do).
    """
    if not NAME.fullmatch(name):
        yield (), f"{name!r}: expected a name of letters, digits, '.', '_' and '-'; rename it"
    if not isinstance(values, Mapping):
        yield (), f"{name}: expected a mapping with {', '.join(ENTRY_KEYS)}; found {_shown(values)}"
        return
    for key in values:
        if key not in ENTRY_KEYS:
            yield (key,), f"{name}: unknown key {key!r}; known are {', '.join(ENTRY_KEYS)}"
    for key in ENTRY_KEYS:
        if key in values:
            for below, text in _CHECKS[key](values[key]):
                yield (key, *below), f"{name}: {'/'.join(map(str, (key, *below)))} {text}"
        elif key != "metadata":
            yield (), f"{name}: {key} is missing; scripts/package_dataset.py prints whole entries"


def _check_artifact(value: object) -> Iterator[Problem]:
    if not isinstance(value, str):
        yield (), f"is {_shown(value)}, expected text such as entity/project/name:v0"
    elif (text := reference_problem(value)) is not None:
        yield (), text


def _check_kind(value: object) -> Iterator[Problem]:
    if value not in KINDS:
        yield (), f"is {_shown(value)}, expected one of {', '.join(KINDS)}"


def _check_splits(value: object) -> Iterator[Problem]:
    """Known splits, each with a member of its own that cannot leave the folder it is unpacked in."""
    if not isinstance(value, Mapping) or not value:
        yield (), f"is {_shown(value)}, expected a mapping such as {{train: burgers1d_train.h5}}"
        return
    owners: dict[str, str] = {}
    for split, member in value.items():
        if split not in SPLITS:
            yield (split,), f"is an unknown split, expected one of {', '.join(SPLITS)}"
        if not isinstance(member, str) or not member:
            yield (split,), f"is {_shown(member)}, expected the name of a file"
        elif _UNSAFE.search(member) or member.startswith("."):
            yield (
                (split,),
                f"is {member!r}, expected a name without folders, '\\' or ':', and not beginning with '.'; "
                "files lie side by side in the tarball",
            )
        elif (other := owners.setdefault(member.casefold(), split)) != split:
            yield (split,), f"is {member!r} as {other} is; give each split its own file"


def _check_sha256(value: object) -> Iterator[Problem]:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):  # YAML may take digits for a number
        expected = "expected 64 hexadecimal digits in lower case (quoted if all are 0 to 9)"
        yield (), f"is {_shown(value)}, {expected}"


def _check_size(value: object) -> Iterator[Problem]:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        yield (), f"is {_shown(value)}, expected a number of bytes above 0, without quotes"


def _check_metadata(value: object) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield (), f"is {_shown(value)}, expected a mapping"
    else:
        yield from json_problems(value)


_CHECKS = {
    "artifact": _check_artifact,
    "kind": _check_kind,
    "splits": _check_splits,
    "sha256": _check_sha256,
    "size": _check_size,
    "unpacked": _check_size,
    "metadata": _check_metadata,
}


def json_problems(value: object, depth: int = 0) -> Iterator[Problem]:
    """Values below `value` that JSON cannot hold, because stores keep metadata as JSON."""
    if depth > _MAX_DEPTH:
        yield (), f"is nested deeper than {_MAX_DEPTH} levels; make it flatter"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield (str(key),), "has a key that is not text; quote it"
            yield from (((key, *keys), text) for keys, text in json_problems(item, depth + 1))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from (((index, *keys), text) for keys, text in json_problems(item, depth + 1))
    elif isinstance(value, float) and not math.isfinite(value):
        yield (), f"is {value}, expected a finite number"
    elif not isinstance(value, (str, int, float, type(None))):
        yield (), f"is {_shown(value)}, expected text, a number, true, false, null, a list or a mapping"


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text[:77]}..." if len(text) > 80 else text


def default_registry() -> Path:
    """Name the registry that people share: $GUST_REGISTRY, or the project's."""
    return Path(os.environ.get("GUST_REGISTRY") or SHARED_REGISTRY)


def registry_beside(root: Path) -> Path:
    """Name the registry that `--register` writes: $GUST_REGISTRY, or a file beside the data.

    The project's own is tracked by git, so that writing there would make every later provenance "-dirty".
    """
    return Path(os.environ.get("GUST_REGISTRY") or root / SHARED_REGISTRY.name)


def find_entries(names: Iterable[str], *, registry: Path | None, root: Path) -> list[DatasetEntry]:
    """Look data sets up.

    Args:
        names: Of the data sets; each once, however often it comes.
        registry: The file; None for those that are looked up by default.
        root: Folder of the data, which may have a registry of its own.

    Raises:
        ValueError: One is in none of them, or wrong; with the line.
    """
    given = registry or (default_registry() if os.environ.get("GUST_REGISTRY") else None)
    own, shared = registry_beside(root), default_registry()
    paths = [given] if given else [path for path in (own, shared) if path.exists()] or [shared]
    registries = [load_registry(path) for path in paths]
    entries = []
    for name in dict.fromkeys(names):
        holders = [item for item in registries if name in item.values] or registries[-1:]
        entries.append(holders[0][name])
        if len(holders) > 1 and holders[0].values[name] != holders[1].values[name]:
            log.warning("%s is not the same in %s and %s; the first is used", name, *paths)
    return entries


@dataclass(frozen=True)
class Registry:
    """The data sets of a registry; each is checked when it is asked for, so a wrong one stops no other.

    Attributes:
        path: The file.
        values: What it says.
    """

    path: Path
    values: CommentedMap

    def __getitem__(self, name: str) -> DatasetEntry:
        """Give the entry of a data set.

        Raises:
            ValueError: There is none of that name, or it is wrong; with the line.
        """
        key = next((key for key in self.values if str(key) == name), None)
        if key is None:
            close = difflib.get_close_matches(name, map(str, self.values), n=3)
            has = f"it has {', '.join(map(str, self.values)) or 'none'}"
            known = f"did you mean {' or '.join(close)}?" if close else has
            raise ValueError(
                f"{self.path} has no data set {name!r}; {known} (scripts/package_dataset.py makes an entry, "
                "--registry names another file)"
            )
        problems = self.problems(key)
        if problems:
            check = f"python -m gust_torch.artifacts.registry check {self.path}"
            more = f" ({len(problems) - 1} more: {check})" if len(problems) > 1 else ""
            raise ValueError(problems[0] + more)
        return DatasetEntry(name=name, **self.values[name])

    def problems(self, name: object) -> list[str]:
        """List what is wrong with an entry, "FILE:LINE: what", in the order of the lines."""
        if not isinstance(name, str):
            return [f"{self.path}:{self.line((name,))}: key {str(name)!r} is not text; quote it"]
        found = [(self.line((name, *keys)), text) for keys, text in entry_problems(name, self.values[name])]
        return [f"{self.path}:{line}: {text}" for line, text in sorted(found)]

    def line(self, keys: Sequence[object]) -> int:
        """Line of a value, counted from 1, or of what is nearest above it."""
        line, place = 0, self.values
        for key in keys:
            if isinstance(place, CommentedMap) and key in place:
                line = place.lc.key(key)[0]
            elif isinstance(place, CommentedSeq):
                line = place.lc.item(key)[0]
            else:
                break
            place = place[key]
        return line + 1


def load_registry(path: str | Path) -> Registry:
    """Read a registry, whose entries may be wrong.

    Raises:
        ValueError: There is no such file, or it is no YAML mapping, or has a key twice; with the line.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        remedy = "give its path, or start one with scripts/package_dataset.py"
        raise ValueError(f"{path}: no such registry; {remedy}") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder, expected a YAML file") from None
    if not data.strip():
        raise ValueError(f"{path}:1: empty, expected a mapping of data sets or comments; was it cut off?")
    return _read(path, data)


def check_registry(path: str | Path) -> list[str]:
    """Every problem of a registry, "FILE:LINE: what is wrong", in the order of the lines."""
    try:
        registry = load_registry(path)
    except ValueError as error:
        return [str(error)]
    return [problem for name in registry.values for problem in registry.problems(name)]


def _read(path: Path, data: bytes) -> Registry:
    """Understand a registry's bytes; aliases, repeated keys and deep nesting are refused.

    Raises:
        ValueError: It is not what it should be; with the line.
    """
    try:
        text = data.decode("utf-8-sig")
        yaml = YAML()
        yaml.Composer, yaml.Constructor = _Composer, _Constructor
        values = yaml.load(text)
    except UnicodeDecodeError as error:
        line, what = data.count(b"\n", 0, error.start) + 1, "expected UTF-8 text; save it as UTF-8"
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        key = str(error.problem).split('"')[1]
        first = error.context_mark.line + 1
        what = f"{key} stands here again, in the mapping from line {first} on; keep one"
    except MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        start = f" {error.context} from line {error.context_mark.line + 1}" if error.context_mark else ""
        what = f"not YAML: {error.problem or error.context}{start}"
    except YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        what = f"not YAML: {str(error).splitlines()[0]}"
    else:
        if isinstance(values, CommentedMap):
            registry = Registry(path, values)
            _refuse_nested(registry)
            return registry
        if values is None:
            return Registry(path, CommentedMap())
        line = values.lc.line + 1 if isinstance(values, CommentedSeq) else 1
        what = f"expected a mapping, name of a data set -> entry, found {_shown(values)}"
    raise ValueError(f"{path}:{line}: {' '.join(what.split())}")


def _refuse_nested(registry: Registry) -> None:
    """Look for a registry of UPS: data sets below `datasets:`, with `train_split:` and without digests.

    Raises:
        ValueError: It is one; with what to write instead.
    """
    nested = registry.values.get("datasets")
    if not isinstance(nested, CommentedMap) or "artifact" in nested:
        return
    name, entry = next(iter(nested.items()), ("NAME", None))
    entry = entry if isinstance(entry, CommentedMap) else {}
    splits = {split: entry[f"{split}_split"] for split in SPLITS if f"{split}_split" in entry}
    shown = _yaml(splits or entry.get("splits") or {"train": "TASK_train.h5"})
    raise ValueError(
        f"{registry.path}:{registry.line(('datasets',))}: data sets stand below 'datasets:', as UPS has "
        f"it, expected them at the top; write {name}: with artifact, kind, splits: {shown} and sha256, "
        "size, unpacked of the tarball, as scripts/package_dataset.py prints them"
    )


class _Composer(Composer):
    """Refuses deep nesting, and `*name`, with which a few lines can grow without end."""

    levels = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent):
            text = f"*{event.anchor}: aliases are not supported; write the values out"
            raise ComposerError(None, None, text, event.start_mark)
        if self.levels > _MAX_DEPTH:
            text = f"nested deeper than {_MAX_DEPTH} levels; flatten it"
            raise ComposerError(None, None, text, event.start_mark)
        self.levels += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.levels -= 1


class _Constructor(RoundTripConstructor):
    """Knows the line of a scalar that is not what it looks like: 2024-13-45, !!bool x, !!int ''."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            text = f"{node.value!r} is not a value ({error}); quote it"
            raise ConstructorError(None, None, text, node.start_mark) from error


def register(path: str | Path, entry: DatasetEntry, *, overwrite: bool) -> bool:
    """Append an entry to a registry, or replace the one of the same name in its place.

    Comments and other entries stay byte for byte; comments inside a replaced entry go with it. The file is
    checked before it gets its name and starts to exist if there was none.

    Args:
        path: The registry.
        entry: What to write.
        overwrite: Whether a different entry of this name may be replaced.

    Returns:
        Whether the file changed; it does not where it has this very entry already.

    Raises:
        ValueError: A different entry of this name and no `overwrite`, or a registry that is invalid
            elsewhere, or one in braces, which nothing can be appended to.
        BlockingIOError: Another process is registering something.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(path)
    try:
        data = path.read_bytes() if path.exists() else b""
        old = _read(path, data)
        wanted = _read(path, entry.to_yaml().encode()).values[entry.name]
        if entry.name in old.values:
            there = old.values[entry.name]
            if isinstance(there, Mapping) and {"metadata": {}, **there} == {"metadata": {}, **wanted}:
                return False
            if not overwrite:
                raise ValueError(
                    f"{path}:{old.line((entry.name,))}: has another {entry.name!r}; give --overwrite to "
                    "replace it, or rename it"
                )
        new = _spliced(data, old, entry)
        _check(path, new, {**old.values, entry.name: wanted})
        with written_aside(path) as file:
            file.write(new)
    finally:
        lock.release()
    return True


def _spliced(data: bytes, old: Registry, entry: DatasetEntry) -> bytes:
    """Put the entry in its place, or at the end behind an empty line."""
    newline = b"\r\n" if b"\r\n" in data else b"\n"
    block = entry.to_yaml().encode().replace(b"\n", newline)
    lines = data.splitlines(keepends=True)
    if entry.name not in old.values:
        end = b"" if not data or data.endswith(b"\n") else newline
        gap = newline if data and not (data + end).endswith(newline * 2) else b""
        return data + end + gap + block
    start = old.line((entry.name,)) - 1
    later = [old.line((name,)) - 1 for name in old.values if old.line((name,)) - 1 > start]
    stop = min(later, default=len(lines))
    while not lines[stop - 1].strip() or lines[stop - 1].lstrip().startswith(b"#"):
        stop -= 1  # what stands above the next entry is that one's
    return b"".join(lines[:start]) + block + b"".join(lines[stop:])


def _check(path: Path, data: bytes, expected: Mapping[Any, object]) -> None:
    """Make sure that the new text says what it should.

    Raises:
        ValueError: It does not, because of what was there before.
    """
    try:
        registry = _read(path, data)
    except ValueError as error:
        raise ValueError(f"the entry does not fit in here ({error}); add it by hand") from error
    if dict(registry.values) != expected:
        raise ValueError(f"{path}: the entry does not fit in here without changing others; add it by hand")
    for problem in [problem for name in registry.values for problem in registry.problems(name)]:
        raise ValueError(f"{problem}: so {path} would not be valid; correct that first")


@dataclass(frozen=True)
class CheckOptions:
    """Which registry is checked."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE]")] = field(
        default_factory=default_registry
    )
    """The registry."""


def main(arguments: Sequence[str] | None = None) -> int:
    """List everything that is wrong with a registry; exit code 1 if there is anything."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["check"]:
        del given[0]
    elif given[:1] not in (["-h"], ["--help"]):
        print(f"usage: {_PROG} [FILE]", file=sys.stderr)
        return 2
    return run_command(
        lambda: _check_file(parse(CheckOptions, given, prog=_PROG, description=main.__doc__ or "").file)
    )


def _check_file(path: Path) -> int:
    """Print every problem on standard error, or on standard output that there is none."""
    problems = check_registry(path)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    count = len(load_registry(path).values)
    print(f"{path}: {count} dataset{'' if count == 1 else 's'}, no problems")
    return 0


if __name__ == "__main__":
    sys.exit(main())
