"""Adds an entry to the registry file and leaves every other byte of it as it is."""

from pathlib import Path

from gust_torch.artifacts.registry.entry import DatasetEntry
from gust_torch.artifacts.registry.file import decode_registry, document_problems
from gust_torch.artifacts.registry.yaml_lines import Document, SyntaxProblem, read_document
from solvers.common.files import WriterLock, written_aside

_BOM = b"\xef\xbb\xbf"


def register(path: str | Path, entry: DatasetEntry, *, overwrite: bool) -> bool:
    """Append an entry to a registry, or replaces the one of the same name in its place.

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
        return _register(path, entry, overwrite=overwrite)
    finally:
        lock.release()


def _register(path: Path, entry: DatasetEntry, *, overwrite: bool) -> bool:
    """`register` under the lock."""
    data = path.read_bytes() if path.exists() else b""
    try:
        text = decode_registry(data)
        old = read_document(text)
    except SyntaxProblem as problem:
        raise ValueError(f"{path}:{problem.line}: {problem}; correct it first") from problem
    values = old.value if isinstance(old.value, dict) else {}
    wanted = _parsed(entry)
    if entry.name in values:
        if not old.problems and _same(values[entry.name], wanted):
            return False
        if not overwrite:
            line = old.lines[(entry.name,)]
            raise ValueError(
                f"{path}:{line}: has another {entry.name!r}; give --overwrite to replace it, or rename it"
            )
    if not old.block:
        raise ValueError(f"{path}: expected a mapping of data sets without braces; add the entry by hand")
    new = _compose(text, old, entry)
    _check(path, new, {**values, entry.name: wanted})
    with written_aside(path) as file:
        file.write((_BOM if data.startswith(_BOM) else b"") + new.encode("utf-8"))
    return True


def _compose(text: str, old: Document, entry: DatasetEntry) -> str:
    """Return the text with the entry in its place, or at the end behind an empty line."""
    newline = "\r\n" if "\r\n" in text else "\n"
    block = entry.to_yaml().replace("\n", newline)
    if entry.name in old.spans:
        start, stop = old.spans[entry.name]
        return text[:start] + block + text[stop:]
    if text and not text.endswith("\n"):
        text += newline
    separator = newline if text and not text.endswith(newline * 2) else ""
    return text + separator + block


def _check(path: Path, text: str, expected: object) -> None:
    """Make sure that the text is a valid registry with the expected content.

    Raises:
        ValueError: It is not; with the first problem.
    """
    try:
        document = read_document(text)
    except SyntaxProblem as problem:
        raise ValueError(f"{path}: the entry does not fit in here ({problem}); add it by hand") from problem
    problems = document_problems(document)
    if problems:
        line, first = problems[0]
        raise ValueError(
            f"{path}: would be invalid on line {line} ({first}); correct the file first "
            f"(python -m gust_torch.artifacts.registry check {path})"
        )
    if document.value != expected:
        raise ValueError(f"{path}: the entry does not fit in here without changing others; add it by hand")


def _parsed(entry: DatasetEntry) -> dict[str, object]:
    """Return the entry as it is read back, lists instead of tuples."""
    value = read_document(entry.to_yaml()).value
    assert isinstance(value, dict)
    result: dict[str, object] = value[entry.name]
    return result


def _same(values: object, wanted: dict[str, object]) -> bool:
    """Whether an entry of the file says the same; empty metadata is none."""
    return isinstance(values, dict) and {"metadata": {}, **values} == {"metadata": {}, **wanted}
