"""The registry file: reading it, and every problem in it at once."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gust_torch.artifacts.registry.checks import entry_problems
from gust_torch.artifacts.registry.entry import DatasetEntry
from gust_torch.artifacts.registry.yaml_lines import Document, SyntaxProblem, read_document

DEFAULT_REGISTRY = Path("docs/dataset_registry.yaml")


@dataclass(frozen=True)
class Registry:
    """All data sets that a registry knows.

    Attributes:
        entries: Name -> entry.
        path: The file they come from, for messages.
    """

    entries: Mapping[str, DatasetEntry]
    path: Path = DEFAULT_REGISTRY

    def __getitem__(self, name: str) -> DatasetEntry:
        """The entry of a data set.

        Raises:
            ValueError: There is none of that name.
        """
        if name in self.entries:
            return self.entries[name]
        close = difflib.get_close_matches(name, self.entries, n=3)
        known = (
            f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(self.entries) or 'none'}"
        )
        raise ValueError(
            f"{self.path} has no data set {name!r}; {known} (scripts/package_dataset.py makes an entry, "
            "--registry names another file)"
        )


def load_registry(path: str | Path = DEFAULT_REGISTRY) -> Registry:
    """Reads a registry.

    Raises:
        ValueError: It is missing, or anything in it is wrong; with the line.
    """
    path = Path(path)
    document, problems = _read(path)
    if problems:
        more = f" ({len(problems) - 1} more: python -m gust_torch.artifacts.registry check {path})"
        raise ValueError(problems[0] + (more if len(problems) > 1 else ""))
    assert document is not None
    return Registry(entries_of(document), path)


def check_registry(path: str | Path = DEFAULT_REGISTRY) -> list[str]:
    """Every problem of a registry, "FILE:LINE: what is wrong", in the order of the lines."""
    return _read(Path(path))[1]


def document_problems(document: Document) -> list[tuple[int, str]]:
    """(line, what is wrong) for everything in a document, in the order of the lines."""
    return sorted([*document.problems, *_content_problems(document)])


def entries_of(document: Document) -> dict[str, DatasetEntry]:
    """Entries of a document without problems."""
    value = document.value if isinstance(document.value, dict) else {}
    return {name: DatasetEntry(name=name, **values) for name, values in value.items()}


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


def _read(path: Path) -> tuple[Document | None, list[str]]:
    """The document of a file, and its problems; None where it could not be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, [
            f"{path}: no such registry; give its path, or start one with scripts/package_dataset.py"
        ]
    except IsADirectoryError:
        return None, [f"{path}: is a folder, expected a YAML file"]
    try:
        text = decode_registry(data)
        document = read_document(text)
    except SyntaxProblem as problem:
        return None, [f"{path}:{problem.line}: {problem}"]
    if not text.strip():
        return document, [f"{path}:1: empty, expected a mapping of data sets or comments; was it cut off?"]
    return document, [f"{path}:{line}: {text}" for line, text in document_problems(document)]


def _content_problems(document: Document) -> Iterator[tuple[int, str]]:
    """Problems of the entries."""
    if document.value is None and () not in document.lines:
        return
    if not isinstance(document.value, dict):
        what = type(document.value).__name__
        yield document.lines[()], f"expected a mapping, name of a data set -> entry, found {what}"
        return
    for name, values in document.value.items():
        for keys, text in entry_problems(name, values):
            where = (name, *keys)
            while where not in document.lines:
                where = where[:-1]
            yield document.lines[where], text
