"""YAML of the registry as plain values that know their lines; repeated keys do not hide each other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

# The C loader is ten times faster, which a fetch that has nothing to do notices.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 20
# What yaml raises at scalars that are not what they look like or claim to be: 2024-13-45, !!bool x, !!int ''.
_VALUE_ERRORS = (ValueError, LookupError, AttributeError, TypeError)
_STRING_TAG = "tag:yaml.org,2002:str"

Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """What a YAML file says.

    Attributes:
        value: The content: mappings, lists and scalars; None for a file of comments only.
        lines: Keys from the top (`("burgers1d", "splits", "train")`) -> line, counted from 1.
        spans: Key of the top mapping -> (start, stop) of its entry among the characters of the text; `stop`
            is the end of its last line, before any comment on lines of their own.
        problems: (keys, line, what is wrong) for repeated keys, which concern the whole file (no keys), and
            for keys that are not text, which concern the entry they stand in.
        block: Whether entries can be appended: the top is a mapping without braces, or nothing yet.
    """

    value: object
    lines: Mapping[Key, int]
    spans: Mapping[str, tuple[int, int]]
    problems: tuple[tuple[Key, int, str], ...]
    block: bool


class SyntaxProblem(ValueError):
    """Text that is not YAML.

    Attributes:
        line: Where, counted from 1.
    """

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def read_document(text: str) -> Document:
    """Read one YAML document.

    Raises:
        SyntaxProblem: The text is not YAML, uses aliases (`*name`), or is nested absurdly deep.
    """
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=_LOADER)
        reader = _Reader(text)
        value = None if root is None else reader.value(root, ())
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        start = f" {error.context} from line {error.context_mark.line + 1}" if error.context_mark else ""
        raise SyntaxProblem(line, f"not YAML: {error.problem or error.context}{start}") from error
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise SyntaxProblem(line, f"not YAML: {str(error).splitlines()[0]}") from error
    block = root is None or (isinstance(root, yaml.MappingNode) and not root.flow_style)
    return Document(value, reader.lines, reader.spans, tuple(reader.problems), block)


def _check_events(text: str) -> None:
    """Refuses aliases and deep nesting before anything recursive sees the text (libyaml's nodes crash)."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = (event.start_mark.line if event.start_mark else 0) + 1
        if isinstance(event, yaml.AliasEvent):
            raise SyntaxProblem(line, f"*{event.anchor}: aliases are not supported; write the values out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise SyntaxProblem(line, f"nested deeper than {_MAX_DEPTH} levels; flatten it")


class _Reader:
    """Turns nodes into values and remembers where they stood."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._scalars = yaml.constructor.SafeConstructor()
        self.lines: dict[Key, int] = {}
        self.spans: dict[str, tuple[int, int]] = {}
        self.problems: list[tuple[Key, int, str]] = []

    def value(self, node: yaml.Node, key: Key) -> object:
        """Value of a node found under `key`."""
        self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*key, index)) for index, item in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except _VALUE_ERRORS as error:
            text = f"not YAML: {node.value!r} is not a value ({error}); quote it"
            raise SyntaxProblem(node.start_mark.line + 1, text) from error

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, object]:
        """Values by key; of a repeated key the first counts, and the others are problems."""
        values: dict[str, object] = {}
        for name_node, item in node.value:
            line = name_node.start_mark.line + 1
            where = "/".join(map(str, key))
            prefix = f"{where}: " if where else ""
            if not isinstance(name_node, yaml.ScalarNode) or name_node.tag != _STRING_TAG:
                concerned = (*key, str(name_node.value))
                self.problems.append(
                    (concerned, line, f"{prefix}key {_show(name_node)} is not text; quote it")
                )
                continue
            name = name_node.value
            if name in values:
                first = self.lines[(*key, name)]
                self.problems.append(
                    ((), line, f"{prefix}{name} stands here again, first on line {first}; keep one")
                )
                continue
            self.lines[(*key, name)] = line
            values[name] = self.value(item, (*key, name))
            if not key:
                self.spans[name] = (name_node.start_mark.index, self._line_end(item))
        return values

    def _line_end(self, node: yaml.Node) -> int:
        """End of the last line that belongs to a node; the next comment does not."""
        *_, last = _leaves(node)
        stop = len(
            self._text[: last.end_mark.index].rstrip()
        )  # a block scalar claims the empty lines behind it
        newline = self._text.find("\n", stop)
        return len(self._text) if newline < 0 else newline + 1


def _leaves(node: yaml.Node) -> Iterator[yaml.Node]:
    """Scalars and bracketed collections below a node in their order: these know where they end."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        yield node
    elif isinstance(node, yaml.MappingNode):
        for name, item in node.value:
            yield from _leaves(name)
            yield from _leaves(item)
    else:
        for item in node.value:
            yield from _leaves(item)


def _show(node: yaml.Node) -> str:
    """Return a key as it is written, as far as it is short."""
    return repr(node.value) if isinstance(node, yaml.ScalarNode) else "of several values"
