"""Error messages for YAML files that do not fit their model."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief, printable

_SHOWN = 20  # wrong keys listed in a message
_READ = 100  # of which each is looked up once, if it is listed twice
_LONGEST = 1000  # characters of what a model says, which may quote the value


class RecipeError(ValueError):
    """A recipe, suite or override cannot be used; nothing was run."""


def explain(
    error: ValidationError, model: type[BaseModel], what: str, *, overrides: bool = True
) -> str:
    """Turn a pydantic error into a message with each key, its allowed values and close matches.

    Args:
        error: what `model` raised.
        model: the model that raised it.
        what: the file being read, e.g. ``digits.yaml (transfer recipe)``.
        overrides: whether its keys can be overridden on the command line.
    """
    items = error.errors(include_url=False)
    lines = list(dict.fromkeys(_line(item, model) for item in items[:_READ]))
    wrong = len(lines) + len(items[_READ:])
    count = "1 key is" if wrong == 1 else f"{wrong} keys are"
    more = [f"and {wrong - _SHOWN} more"] if wrong > _SHOWN else []
    return "\n  ".join(
        [
            f"{what}: {count} wrong; nothing was run.",
            *lines[:_SHOWN],
            *more,
            "Correct the file"
            + (", or override a key on the command line as KEY VALUE." if overrides else "."),
        ]
    )


def _line(item: Any, model: type[BaseModel]) -> str:
    owner, path = _locate(model, item["loc"])
    key = printable(".".join(str(part) for part in path)) or "(top level)"
    if item["type"] == "extra_forbidden":
        known = sorted(owner.model_fields)
        near = did_you_mean(path[-1], known)
        return f"{key}: unknown key.{near} Known: {', '.join(known)}."
    if item["type"] == "missing":
        return f"{key}: required, but not given.{_description(owner, path[-1])}"
    near = ""
    if item["type"] in ("literal_error", "enum"):
        near = did_you_mean(item["input"], _choices(owner, path[-1]))
    message = printable(item["msg"].removeprefix("Value error, ").rstrip("."), _LONGEST)
    return f"{key}: {message}; got {brief(item['input'])}.{near}"


def _locate(
    model: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[type[BaseModel], list[int | str]]:
    """Return the model that owns the last key of `location`, and the keys as the user wrote them.

    pydantic adds the branches of a union to the location (``policy.str``); they are left out.
    """
    owner, path, inner = model, [], model
    for part in location:
        if isinstance(part, int):
            path.append(part)
        elif inner is not None:
            owner = inner
            path.append(part)
            field = owner.model_fields.get(part)
            inner = _nested(field.annotation) if field else None
    return owner, path


def _nested(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic model inside an annotation such as ``list[Entry] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _nested(a))), None)


def _choices(owner: type[BaseModel], key: int | str) -> list[str]:
    field = owner.model_fields.get(str(key))
    return [c for c in get_args(field.annotation) if isinstance(c, str)] if field else []


def _description(owner: type[BaseModel], key: int | str) -> str:
    field = owner.model_fields.get(str(key))
    return f" It is: {field.description.rstrip('.')}." if field and field.description else ""
