"""Metadata of an artifact: what it may hold, and how it is read from the command line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

OWN_KEYS = ("sha256", "package_version", "git_commit")  # set by the upload
MAX_KEYS = 100 - len(OWN_KEYS)  # W&B's limit, for all stores

Problem = tuple[tuple[str | int, ...], str]  # the keys to a value, what is wrong with it

_REMEDY = """write it like '{"samples": 20}'"""


def parse_metadata(text: str) -> dict[str, object]:
    """Return a JSON object from its text, or from a file.

    Args:
        text: '{"samples": 20}', or "@FILE".

    Raises:
        ValueError: It is no JSON, with the place of the mistake; no object; has a key twice, NaN or an
            infinity, too many keys, or one that the upload sets.
    """
    where = "--metadata"
    if text.startswith("@"):
        where = f"--metadata file {text[1:]}"
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not UTF-8 text; name a JSON file") from error
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where} is no JSON at line {error.lineno}, column {error.colno}: {error.msg.lower()}"
            f"{_excerpt(error)}; {_REMEDY}"
        ) from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply; make it flatter") from error
    except _Refused as error:
        raise ValueError(f"{where} {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {_kind(value)}, not an object; {_REMEDY}")
    if len(value) > MAX_KEYS:
        raise ValueError(f"{where} has {len(value)} keys, more than {MAX_KEYS}; group them in objects")
    if own := [key for key in OWN_KEYS if key in value]:
        raise ValueError(f"{where} has the key {own[0]!r}, which the upload sets itself; leave it out")
    return value


class _Refused(Exception):
    """JSON that Python reads and we do not."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object without keys that come twice."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Refused(f"has the key {next(key for key in keys if keys.count(key) > 1)!r} twice; remove one")
    return result


def _refuse(constant: str) -> NoReturn:
    """NaN and infinities are no JSON."""
    raise _Refused(f"holds {constant}, which is no JSON; give a finite number or null")


def _excerpt(error: json.JSONDecodeError) -> str:
    """Return the text behind a mistake."""
    rest = error.doc[error.pos : error.pos + 20]
    return f" before {rest!r}" if rest else " at its end"


def _kind(value: object) -> str:
    """Return what JSON calls a value."""
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def json_problems(value: object) -> Iterator[Problem]:
    """Values that JSON cannot hold, below `value`."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield (key,), "has a key that is not text; quote it"
            yield from (((key, *keys), text) for keys, text in json_problems(item))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from (((index, *keys), text) for keys, text in json_problems(item))
    elif isinstance(value, float) and not math.isfinite(value):
        yield (), f"is {value}, expected a finite number"
    elif not isinstance(value, (str, int, float, type(None))):
        yield (
            (),
            f"is {shown(value)}, expected text, a number, true, false, null, a list or a mapping; quote it",
        )


def shown(value: object) -> str:
    """Return a value in a message."""
    text = repr(value)
    return f"{text[:77]}..." if len(text) > 80 else text
