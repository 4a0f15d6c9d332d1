"""What the fields of a data set in the registry must be."""

import re
from collections.abc import Iterator

from gust_torch.artifacts.metadata import Problem, json_problems, shown
from gust_torch.artifacts.reference import reference_problem

KINDS = ("grid", "mesh", "particles")
SPLITS = ("train", "val", "test")
ENTRY_KEYS = ("artifact", "kind", "splits", "sha256", "size", "unpacked", "metadata")
OPTIONAL_KEYS = ("metadata",)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\:]")


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
    if not isinstance(values, dict):
        keys = ", ".join(ENTRY_KEYS)
        yield (), f"{name}: expected a mapping with {keys}; found {shown(values)}"
        return
    for key in values:
        if key not in ENTRY_KEYS:
            yield (key,), f"{name}: unknown key {key!r}; known are {', '.join(ENTRY_KEYS)}"
    for key in ENTRY_KEYS:
        if key in values:
            for below, text in _CHECKS[key](values[key]):
                yield (key, *below), f"{name}: {'/'.join(map(str, (key, *below)))} {text}"
        elif key not in OPTIONAL_KEYS:
            yield (), f"{name}: {key} is missing; scripts/package_dataset.py prints whole entries"


def _check_artifact(value: object) -> Iterator[Problem]:
    """Yield a reference with its version, or a URL."""
    if not isinstance(value, str):
        yield (), f"is {shown(value)}, expected text such as entity/project/name:v0"
    elif (text := reference_problem(value)) is not None:
        yield (), text


def _check_kind(value: object) -> Iterator[Problem]:
    """One of KINDS."""
    if value not in KINDS:
        yield (), f"is {shown(value)}, expected one of {', '.join(KINDS)}"


def _check_splits(value: object) -> Iterator[Problem]:
    """Known splits, each with a member of its own that cannot leave the folder it is unpacked in."""
    if not isinstance(value, dict) or not value:
        yield (), f"is {shown(value)}, expected a mapping such as {{train: burgers1d_train.h5}}"
        return
    owners: dict[str, str] = {}
    for split, member in value.items():
        if split not in SPLITS:
            yield (split,), f"is an unknown split, expected one of {', '.join(SPLITS)}"
        if (text := member_problem(member)) is not None:
            yield (split,), text
            continue
        if (other := owners.setdefault(member.casefold(), split)) != split:
            yield (split,), f"is {member!r} as {other} is; give each split its own file"


def member_problem(member: object) -> str | None:
    """Return what is wrong with the name of a split's file; None where it is safe to unpack."""
    if not isinstance(member, str) or not member:
        return f"is {shown(member)}, expected the name of a file"
    if _UNSAFE.search(member) or member.startswith("."):
        return (
            f"is {member!r}, expected a name without folders, '\\' or ':', and not "
            "beginning with '.'; files lie side by side in the tarball"
        )
    return None


def _check_sha256(value: object) -> Iterator[Problem]:
    """64 hex digits; YAML takes an unquoted one without letters for a number."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        yield (
            (),
            f"is {shown(value)}, expected 64 hexadecimal digits in lower case (quoted if all are 0 to 9)",
        )


def _check_size(value: object) -> Iterator[Problem]:
    """Yield a number of bytes."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        yield (), f"is {shown(value)}, expected a number of bytes above 0, without quotes"


def _check_metadata(value: object) -> Iterator[Problem]:
    """Yield what JSON can hold, because stores keep it as JSON."""
    if not isinstance(value, dict):
        yield (), f"is {shown(value)}, expected a mapping"
        return
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
