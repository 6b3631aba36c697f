"""Recipes: one YAML file, `_BASE_` inheritance, `KEY VALUE` overrides, a validated model."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lowbit.benchmark.recipes.errors import RecipeError, explain
from lowbit.benchmark.recipes.stages import get_stage
from lowbit.common.input_files.yaml_bases import ConfigFileError, load_file
from lowbit.common.input_files.yaml_values import MAX_NESTING, NotYamlError, parse
from lowbit.common.text import brief, printable

_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.-]*=")


def load_yaml(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file with what it inherits (see `load_file`), then apply `overrides`.

    Args:
        path: the YAML file.
        overrides: command-line words, ``KEY VALUE`` pairs or ``KEY=VALUE``; see `parse_overrides`.

    Raises:
        RecipeError: the file cannot be read, or an override cannot be applied.
    """
    try:
        mapping = load_file(path)
    except ConfigFileError as error:
        raise RecipeError(str(error)) from error
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
                f"The override {brief(word)} has no value; nothing was run. "
                f"Write overrides as pairs, KEY VALUE, or as KEY=VALUE."
            )
        try:
            pairs.append((key, parse(text).value))
        except NotYamlError as error:
            raise RecipeError(
                f"The value of override {brief(key)} is not YAML: {brief(text)} ({error.problem}); "
                f"nothing was run. Quote it for the shell, e.g. '{printable(key)}=[1, 2]'."
            ) from error
    return pairs


def set_key(mapping: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings and lists, in place: ``transfer.0.overrides.lr``."""
    *parents, last = key.split(".")
    if len(parents) >= MAX_NESTING:
        raise RecipeError(
            f"The override {brief(key)} names more than {MAX_NESTING} levels; nothing was run. Shorten "
            "it."
        )
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
        stage: one of `stages.STAGES`; its package is imported here and not before.
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


def _step(node: Any, part: str, parent: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, key)]
    if not isinstance(node, dict):
        raise _no_such_key(key, parent, node)
    if node.get(part) is None:
        node[part] = {}  # a nested section the file leaves to its defaults
    return node[part]


def _index(node: list, part: str, key: str) -> int:
    if part in map(str, range(len(node))):
        return int(part)
    raise RecipeError(
        f"The override {brief(key)} names no item of a list of {len(node)}; nothing was run. "
        f"Count from 0{f', up to {len(node) - 1}' if node else '; the list is empty'}."
    )


def _no_such_key(key: str, parent: str, node: Any) -> RecipeError:
    return RecipeError(
        f"The override {brief(key)} cannot be set: {parent} is {brief(node)}, not a mapping; nothing "
        f"was run. Override {parent} itself."
    )
