"""The registry file: reading it, and every problem in it at once."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gust_torch.artifacts.registry.checks import entry_problems
from gust_torch.artifacts.registry.entry import DatasetEntry
from gust_torch.artifacts.registry.yaml_lines import Document, SyntaxProblem, read_document

DEFAULT_REGISTRY = Path("docs/dataset_registry.yaml")

Problem = tuple[int, str]  # the line, what is wrong there


@dataclass(frozen=True)
class Registry:
    """The data sets of a registry; each is checked when it is asked for, so a wrong one stops no other.

    Attributes:
        document: What the file says.
        path: The file, for messages.
    """

    document: Document
    path: Path = DEFAULT_REGISTRY

    @property
    def names(self) -> list[str]:
        """All data sets, right or wrong."""
        return list(self._values)

    def __getitem__(self, name: str) -> DatasetEntry:
        """Return the entry of a data set.

        Raises:
            ValueError: There is none of that name, or it is wrong; with the line.
        """
        _raise_first(self.path, sorted(_entry_problems(self.document, name)))
        if name in self._values:
            return DatasetEntry(name=name, **self._values[name])
        close = difflib.get_close_matches(name, self.names, n=3)
        known = (
            f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(self.names) or 'none'}"
        )
        raise ValueError(
            f"{self.path} has no data set {name!r}; {known} (scripts/package_dataset.py makes an entry, "
            "--registry names another file)"
        )

    @property
    def _values(self) -> dict[str, Any]:
        """Name -> what stands under it."""
        return self.document.value if isinstance(self.document.value, dict) else {}


def load_registry(path: str | Path = DEFAULT_REGISTRY) -> Registry:
    """Read a registry, whose entries may be wrong.

    Raises:
        ValueError: It is missing, no YAML mapping, or has a key twice; with the line.
    """
    path = Path(path)
    document = _read(path)
    _raise_first(path, sorted(_file_problems(document)))
    return Registry(document, path)


def check_registry(path: str | Path = DEFAULT_REGISTRY) -> list[str]:
    """Every problem of a registry, "FILE:LINE: what is wrong", in the order of the lines."""
    try:
        document = _read(Path(path))
    except ValueError as error:
        return [str(error)]
    return [f"{path}:{line}: {text}" for line, text in document_problems(document)]


def document_problems(document: Document) -> list[Problem]:
    """Everything that is wrong with a document, in the order of the lines."""
    places = [*document.lines, *(keys for keys, _, _ in document.problems)]
    names = {str(keys[0]) for keys in places if keys}
    entries = [problem for name in names for problem in _entry_problems(document, name)]
    return sorted([*_file_problems(document), *entries])


def decode_registry(data: bytes) -> str:
    """Text of a registry, without a byte order mark.

    Raises:
        SyntaxProblem: It is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SyntaxProblem(line, "expected UTF-8 text, found other bytes; save it as UTF-8") from error


def _read(path: Path) -> Document:
    """Return the document of a file.

    Raises:
        ValueError: There is no such file, or it is no YAML.
    """
    try:
        text = decode_registry(path.read_bytes())
        if not text.strip():
            raise SyntaxProblem(1, "empty, expected a mapping of data sets or comments; was it cut off?")
        return read_document(text)
    except FileNotFoundError:
        remedy = "give its path, or start one with scripts/package_dataset.py"
        raise ValueError(f"{path}: no such registry; {remedy}") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder, expected a YAML file") from None
    except SyntaxProblem as problem:
        raise ValueError(f"{path}:{problem.line}: {problem}") from problem


def _raise_first(path: Path, problems: list[Problem]) -> None:
    """Raise ValueError with the first of some problems."""
    if problems:
        line, text = problems[0]
        more = f" ({len(problems) - 1} more: python -m gust_torch.artifacts.registry check {path})"
        raise ValueError(f"{path}:{line}: {text}" + (more if len(problems) > 1 else ""))


def _file_problems(document: Document) -> Iterator[Problem]:
    """Yield what leaves open what the entries are."""
    yield from ((line, text) for keys, line, text in document.problems if not keys)
    if () in document.lines and not isinstance(document.value, dict):
        what = type(document.value).__name__
        yield document.lines[()], f"expected a mapping, name of a data set -> entry, found {what}"


def _entry_problems(document: Document, name: str) -> Iterator[Problem]:
    """Yield what is wrong with one entry."""
    yield from ((line, text) for keys, line, text in document.problems if keys[:1] == (name,))
    if isinstance(document.value, dict) and name in document.value:
        for keys, text in entry_problems(name, document.value[name]):
            where = (name, *keys)
            while where not in document.lines:
                where = where[:-1]
            yield document.lines[where], text
