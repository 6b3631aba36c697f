"""Recipes: one YAML file, `_BASE_` inheritance, `KEY VALUE` overrides, a validated model."""

import copy
import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lowbit.benchmark.recipes.errors import RecipeError, explain
from lowbit.common.suggest import did_you_mean

STAGES = ("pretrain", "transfer", "detection")
"""The packages that do a job's work, in the order data flows. Each has Recipe, VERSION, identity
and run; a package that has these four is a stage once its name stands here. It may also have
`missing_data(recipe)`, which says how to get a data set whose files are not there, or None: such a
job is skipped, for nothing is wrong with it; and `work(recipe)`, which counts operations and bytes
(`lowbit.common.compute_cost.Work`) for the estimates of a plan, or returns None. And one whose recipe has `num_gpus`
has `process_group()`, the context in which so many processes, each with its rank where torchrun puts
it, become one job: all of them call `run`, and what the first returns counts."""

BASE = "_BASE_"
_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.-]*=")
# YAML 1.1 reads 1e-3 as a string because it wants a dot and a signed exponent (1.0e-3).
_FLOAT = re.compile(
    r"""^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$
       |^[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?$""",
    re.VERBOSE,
)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """SafeLoader, in C where there is one, that reads 1e-3 as a number and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def get_stage(name: str) -> ModuleType:
    """Import the package of stage `name`; an unknown name is answered with close matches."""
    if name not in STAGES:
        raise RecipeError(
            f"There is no stage {name!r}; nothing was run."
            f"{did_you_mean(name, STAGES)} Stages: {', '.join(STAGES)}."
        )
    return importlib.import_module(f"lowbit.{name}")


def load_yaml(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file with what it inherits, then apply `overrides`.

    `_BASE_: FILE` at the top of a file names the file it extends, relative to itself: mappings are
    merged key by key, anything else is replaced.

    Args:
        path: the YAML file.
        overrides: command-line words, ``KEY VALUE`` pairs or ``KEY=VALUE``; see `parse_overrides`.

    Raises:
        RecipeError: the file is missing or not YAML, its bases form a circle, or an override
            cannot be applied.
    """
    mapping = _load(Path(path).expanduser(), ())
    for key, value in parse_overrides(overrides):
        set_key(mapping, key, value)
    return mapping


def parse_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    """Read ``KEY VALUE`` and ``KEY=VALUE`` words; values are YAML, keys are dotted.

    Example:
        >>> parse_overrides(["lr", "1e-3", "augmentation.flip=0", "precisions", "[FP, 4w4a]"])
        [('lr', 0.001), ('augmentation.flip', 0), ('precisions', ['FP', '4w4a'])]
    """
    pairs, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if _ASSIGNMENT.match(word):
            key, _, text = word.partition("=")
        elif rest:
            key, text = word, rest.pop(0)
        else:
            raise RecipeError(
                f"The override {word!r} has no value; nothing was run. "
                f"Write overrides as pairs, KEY VALUE, or as KEY=VALUE."
            )
        try:
            pairs.append((key, yaml.load(text, _Loader)))
        except yaml.YAMLError as error:
            raise RecipeError(
                f"The value of override {key!r} is not YAML: {text!r}; nothing was run. "
                f"Quote it for the shell, e.g. '{key}=[1, 2]'."
            ) from error
    return pairs


def set_key(mapping: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings and lists, in place: ``transfer.0.overrides.lr``."""
    *parents, last = key.split(".")
    node: Any = mapping
    for depth, part in enumerate(parents):
        node = _step(node, part, ".".join(parents[:depth]) or "the top level", key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise _no_such_key(key, ".".join(parents), node)


def validate(
    stage: str, mapping: Mapping[str, Any], *, source: Path | str | None = None
) -> BaseModel:
    """Check `mapping` against the stage's recipe and return that recipe, frozen.

    Args:
        stage: one of `STAGES`; its package is imported here and not before.
        mapping: what `load_yaml` returned.
        source: the file it came from, for the messages.

    Raises:
        RecipeError: a key is unknown, missing or has a value that is not allowed.
    """
    model = get_stage(stage).Recipe
    try:
        return model.model_validate(mapping)
    except ValidationError as error:
        what = f"{source} (a {stage} recipe)" if source else f"The {stage} recipe"
        raise RecipeError(explain(error, model, what)) from error


def _load(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    where = path.resolve()
    if where in children:
        circle = " -> ".join(str(p) for p in (*children, where))
        raise RecipeError(
            f"The {BASE} keys form a circle: {circle}; nothing was run. Remove one of them."
        )
    mapping = _read(path, children)
    base = mapping.pop(BASE, None)
    if base is None:
        return mapping
    if not isinstance(base, str):
        raise RecipeError(f"{path}: {BASE} must name one file, not {base!r}; nothing was run.")
    return _merge(_load(path.parent / Path(base).expanduser(), (*children, where)), mapping)


def _read(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    asked = f" ({BASE} of {children[-1]})" if children else ""
    try:
        mapping = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        nearby = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise RecipeError(
            f"There is no file {path}{asked}; nothing was run."
            f"{did_you_mean(path.name, nearby)} Check the path; it is relative to "
            f"{'the file that names it' if children else Path.cwd()}."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path}{asked} cannot be read: {error}; nothing was run. Give a YAML text file."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise RecipeError(
            f"{path}{where} is not valid YAML: {problem}; nothing was run. Correct that line."
        ) from error
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise RecipeError(
            f"{path}{asked} holds a {type(mapping).__name__} where keys were expected; nothing "
            f"was run. Write `key: value` lines."
        )
    return mapping


def _merge(base: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(base)
    for key, value in child.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _step(node: Any, part: str, parent: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, key)]
    if not isinstance(node, dict):
        raise _no_such_key(key, parent, node)
    if node.get(part) is None:
        node[part] = {}  # a nested section the file leaves to its defaults
    return node[part]


def _index(node: list, part: str, key: str) -> int:
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    raise RecipeError(
        f"The override {key!r} names no item of a list of {len(node)}; nothing was run. "
        f"Count from 0, up to {len(node) - 1}."
    )


def _no_such_key(key: str, parent: str, node: Any) -> RecipeError:
    return RecipeError(
        f"The override {key!r} cannot be set: {parent} is {node!r}, not a mapping; nothing was "
        f"run. Override {parent} itself."
    )
