"""Error messages for YAML files that do not fit their model."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lowbit.common.suggest import did_you_mean

_SHOWN = 120  # characters of a wrong value shown in a message


class RecipeError(ValueError):
    """A recipe, suite or override cannot be used; nothing was run."""


def explain(error: ValidationError, model: type[BaseModel], what: str) -> str:
    """Turn a pydantic error into a message with each key, its allowed values and close matches.

    Args:
        error: what `model` raised.
        model: the model that raised it.
        what: the file being read, e.g. ``digits.yaml (transfer recipe)``.
    """
    lines = list(dict.fromkeys(_line(item, model) for item in error.errors(include_url=False)))
    count = "1 key is" if len(lines) == 1 else f"{len(lines)} keys are"
    return "\n  ".join(
        [
            f"{what}: {count} wrong; nothing was run.",
            *lines,
            "Correct the file, or override a key on the command line as KEY VALUE.",
        ]
    )


def _line(item: Any, model: type[BaseModel]) -> str:
    owner, path = _locate(model, item["loc"])
    key = ".".join(str(part) for part in path) or "(top level)"
    if item["type"] == "extra_forbidden":
        known = sorted(owner.model_fields)
        near = did_you_mean(path[-1], known)
        return f"{key}: unknown key.{near} Known: {', '.join(known)}."
    if item["type"] == "missing":
        return f"{key}: required, but not given.{_description(owner, path[-1])}"
    value = repr(item["input"])
    shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
    near = ""
    if item["type"] in ("literal_error", "enum"):
        near = did_you_mean(item["input"], _choices(owner, path[-1]))
    message = item["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{key}: {message}; got {shown}.{near}"


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
