"""YAML files of keys, each with the file that it extends."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from lowbit.common.encoded_text import decode_text
from lowbit.common.input_files.file_names import expanded
from lowbit.common.input_files.regular_file import NotAFileError, read_regular
from lowbit.common.input_files.yaml_values import Document, NotYamlError, parse
from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief, printable, size

BASE = "_BASE_"
_LIMIT = 1_000_000  # bytes of a file; the longest shipped one has 20 kB
_LONGEST_CHAIN = 16  # files, each of which extends the next


class ConfigFileError(ValueError):
    """A file is missing, is not YAML, or extends a file that cannot be read; nothing was run."""


class _Child(NamedTuple):
    """A file that extends another, and the line that says so."""

    file: str
    line: int


def load_file(path: Path | str) -> dict[str, Any]:
    """Read a YAML file of keys with what it inherits.

    `_BASE_: FILE` at the top of a file names the file it extends, relative to itself: mappings are
    merged key by key, anything else is replaced.

    Raises:
        ConfigFileError: the file or one that it extends is missing, special or too long; is not YAML,
            as `lowbit.common.input_files.yaml_values` reads it; or the bases form a circle or too long
            a chain. The message has file and line.
    """
    return _load(_expanded(path), ())


def _load(path: Path, children: tuple[_Child, ...]) -> dict[str, Any]:
    asked = f" ({BASE} of {children[-1].file}, line {children[-1].line})" if children else ""
    where = os.path.realpath(path)
    files = [child.file for child in children]
    if where in files:
        raise ConfigFileError(
            f"The {BASE} keys form a circle: {' -> '.join((*files, where))}; nothing was run. Remove "
            "one of them."
        )
    if len(children) == _LONGEST_CHAIN:
        raise ConfigFileError(
            f"{path}{asked} would be the {_LONGEST_CHAIN + 1}th of a chain of {BASE} keys; nothing was "
            "run. Merge some of the files."
        )
    mapping, lines = _read(path, asked)
    base = mapping.pop(BASE, None)
    if base is None:
        return mapping
    if not isinstance(base, str) or not base:
        raise ConfigFileError(
            f"{path}, line {lines[BASE]}: {BASE} must name one file, not {brief(base)}; nothing was run."
        )
    child = _Child(where, lines[BASE])
    return _merge(_load(path.parent / _expanded(base), (*children, child)), mapping)


def _expanded(path: Path | str) -> Path:
    try:
        return expanded(path)
    except ValueError as error:
        raise ConfigFileError(f"{error}; nothing was run") from error


def _read(path: Path, asked: str) -> Document:
    try:
        found = parse(decode_text(read_regular(path, limit=_LIMIT)))
    except FileNotFoundError as error:
        nearby = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigFileError(
            f"There is no file {printable(str(path))}{asked}; nothing was run."
            f"{did_you_mean(path.name, nearby)} Check the path; it is relative to "
            f"{'the file that names it' if asked else Path.cwd()}."
        ) from error
    except NotYamlError as error:
        where = f", line {error.line}, column {error.column}" if error.line else ""
        raise ConfigFileError(
            f"{path}{where}{asked} is not valid YAML: {error.problem}; nothing was run. Correct that "
            "line."
        ) from error
    except (OSError, NotAFileError, UnicodeDecodeError) as error:
        raise ConfigFileError(
            f"{printable(str(path))}{asked} cannot be read: {error}; nothing was run. Give a YAML text "
            f"file of up to {size(_LIMIT)}."
        ) from error
    if found.value is None:
        return Document({}, {})
    if not isinstance(found.value, dict):
        raise ConfigFileError(
            f"{path}{asked} holds a {type(found.value).__name__} where keys were expected; nothing "
            f"was run. Write `key: value` lines."
        )
    return found


def _merge(base: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Return `base`, which nothing else has, changed to what `child` says."""
    for key, value in child.items():
        known = base.get(key)
        both = isinstance(value, dict) and isinstance(known, dict)
        base[key] = _merge(known, value) if both else value
    return base
