"""Read YAML as data: the core schema of YAML 1.2 and merge keys, in bounds that a parser keeps.

YAML 1.1, which PyYAML reads, takes 1:30 for 90, 010 for 8, `no` for false and 1e-3 for text. Such values
are read as 1.2 does or refused, with their line; a value in quotes is always text. Aliases count as
what they stand for, so a small file cannot become a large value.
"""

import copy
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from lowbit.common.text import brief, printable

MAX_NESTING = 32  # mappings and lists in each other
MAX_VALUES = 100_000  # with aliases as what they stand for
_LARGEST = 2**63  # of an integer: what others hold in 64 bits
_DIGITS = 20  # that may have a value below it

# Events of libyaml, where PyYAML has it, come ten times faster than its own.
_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT = (None, "!", "tag:yaml.org,2002:str")
_MERGE = "<<"

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_OLD_WORDS = {
    form for word in ("yes", "no", "on", "off") for form in (word, word.title(), word.upper())
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_OLD_NUMBER = re.compile(
    r"""[-+]?0b[01_]+ | [-+]?0x[0-9a-fA-F_]+                            # binary; hexadecimal with a sign
        | [-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?            # 1_000
        | [-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?               # 1:30, to base 60
        | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[\ \t]+)[0-9:.]+\S*)? # a date""",
    re.VERBOSE,
)


class NotYamlError(ValueError):
    """A text is not YAML, or has a value that is not read.

    Attributes:
        problem: what is wrong.
        line, column: where, from 1; None if unknown.
    """

    def __init__(self, problem: str, mark: Any = None) -> None:
        self.problem = problem
        self.line, self.column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        super().__init__(f"line {self.line}: {problem}" if mark else problem)


class Document(NamedTuple):
    """The value of a YAML text, and the line of each key at its top."""

    value: Any
    lines: dict[str, int]


def parse(text: str) -> Document:
    """Read one YAML document: mappings with text for keys, lists, text, numbers, true, false, null.

    Raises:
        NotYamlError: it is not YAML; a number is not finite, too large or of YAML 1.1; a key is no
            text or given twice; there are tags; or it is too deep or too large with its aliases
            expanded.

    Example:
        >>> parse("{lr: 1e-3, seeds: [0, 0o10], amp: true, name: 'no'}").value
        {'lr': 0.001, 'seeds': [0, 8], 'amp': True, 'name': 'no'}
    """
    try:
        return _Reader(yaml.parse(text, Loader=_Parser)).document()
    except yaml.MarkedYAMLError as error:
        raise NotYamlError(printable(error.problem or str(error)), error.problem_mark) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        mark = yaml.Mark(None, error.position, line, 0, None, None)
        raise NotYamlError(f"{error.reason} (character {error.position})", mark) from error
    except UnicodeError as error:  # half a character, of a command line that is not UTF-8
        raise NotYamlError("it has characters that are none") from error


class _Reader:
    """Builds values from a parser's events."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._count = 0  # values so far, with aliases as what they stand for
        self._anchors: dict[str, tuple[Any, int] | None] = {}  # None: not read to its end
        self._lines: dict[str, int] = {}

    def document(self) -> Document:
        value, documents = None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise NotYamlError("a second document begins", event.start_mark)
                value = self._value(next(self._events), 0)
        return Document(value, self._lines)

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._add(1, event)
        before = self._count
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif depth == MAX_NESTING:
            raise NotYamlError(f"more than {MAX_NESTING} levels are nested", event.start_mark)
        elif event.tag is not None:
            raise _tagged(event)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(depth + 1)
        else:
            value = self._list(depth + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, 1 + self._count - before
        return value

    def _add(self, count: int, event: Any) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            raise NotYamlError(
                f"there are more than {MAX_VALUES:,} values, aliases (*) counted as what they stand for",
                event.start_mark,
            )

    def _alias(self, event: Any) -> Any:
        """Return a copy of what an alias stands for, so that a change of one is none of the other."""
        if event.anchor not in self._anchors:
            raise NotYamlError(f"there is no anchor &{printable(event.anchor)}", event.start_mark)
        found = self._anchors[event.anchor]
        if found is None:
            raise NotYamlError(f"*{printable(event.anchor)} contains itself", event.start_mark)
        value, count = found
        self._add(count, event)
        return copy.deepcopy(value)

    def _list(self, depth: int) -> list[Any]:
        values = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, depth))
        return values

    def _mapping(self, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if isinstance(event, yaml.ScalarEvent) and event.value == _MERGE and _is_plain(event):
                source = next(self._events)
                for part in reversed(_mappings(self._value(source, depth), source)):
                    merged |= part
                continue
            key = self._value(event, depth)
            if not isinstance(key, str):
                raise NotYamlError(f"the key {brief(key)} is not text; quote it", event.start_mark)
            if key in own:
                raise NotYamlError(f"the key {brief(key)} is given twice", event.start_mark)
            if depth == 1:
                self._lines[key] = event.start_mark.line + 1
            own[key] = self._value(next(self._events), depth)
        return merged | own


def _mappings(value: Any, event: Any) -> list[dict[str, Any]]:
    """Return what a merge key names: a mapping, or several, of which the first counts most."""
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, dict) for part in parts):
        raise NotYamlError(f"{_MERGE} takes a mapping, or a list of them", event.start_mark)
    return parts


def _is_plain(event: Any) -> bool:
    return event.implicit[0] and event.tag is None


def _tagged(event: Any) -> NotYamlError:
    tag = printable(event.tag.replace("tag:yaml.org,2002:", "!!"))
    return NotYamlError(f"the tag {tag} is not read; leave it out", event.start_mark)


def _scalar(event: Any) -> Any:
    if event.tag not in _TEXT:
        raise _tagged(event)
    if not _is_plain(event):
        return event.value
    try:
        return plain(event.value)
    except ValueError as error:
        raise NotYamlError(str(error), event.start_mark) from error


def plain(text: str) -> Any:
    """Return the value of a text without quotes.

    Raises:
        ValueError: it is a number that is not finite or too large, or would be a number, a date, true
            or false in YAML 1.1 alone.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text in _OLD_WORDS:
        raise ValueError(
            f"{text} is true or false in YAML 1.1 alone; write true or false, or quote it"
        )
    if text[0] not in "-+.0123456789":
        if text == "=":
            raise ValueError("= is a key of YAML 1.1; quote it")
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return number
    elif _OLD_NUMBER.fullmatch(text):
        raise ValueError(
            f"{printable(text)} is a number or a date in YAML 1.1 alone; write a plain number, or "
            "quote it"
        )
    elif not _NOT_FINITE.fullmatch(text):
        return text
    raise ValueError(f"{printable(text)} is no finite number; quote it if it is text")


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    number = int(text, base) if len(text) <= _DIGITS + 3 else _LARGEST
    if not -_LARGEST <= number < _LARGEST:
        raise ValueError(
            f"the integer {printable(text)} does not fit in 64 bits; quote it if it is text"
        )
    return number
