"""Validated recipe of a transfer job, and the job's identity."""

from typing import Any, get_args

from pydantic import field_validator, model_validator

from lowbit.data import image_set, locate
from lowbit.quant import Precision, get_policy
from lowbit.transfer.recipe.board_labels import adaptive_facts, protocol_label, training_label
from lowbit.transfer.recipe.checks import check_quantized_training, check_training
from lowbit.transfer.recipe.protocol_registry import get_protocol, options_of_others
from lowbit.transfer.recipe.recipe_fields import RecipeFields
from lowbit.transfer.recipe.sections import (
    Adaptive,
    TOptimizer,
    published_rate,
    with_milestones,
)

VERSION = 2  # of the protocols; raised when the same recipe yields different numbers


class Recipe(RecipeFields):
    """A transfer recipe with compatible fields.

    `epochs`, `lr`, `weight_decay` and `milestones` default to the protocol's published values
    (SPEC A.8) and are written out in the validated recipe.
    """

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        protocol = get_protocol(values.get("protocol", "linear"))
        defaults = {"metrics": _metrics_of(values), **protocol.defaults}
        optimizer = str(values.get("optimizer", "sgd"))
        if "optimizer" in protocol.options and optimizer not in ("sgd", "sgdt"):
            decay = {"weight_decay": 1e-2} if optimizer in ("adamw", "adamwt") else {}  # SPEC C.5
            defaults |= {"lr": published_rate(optimizer), **decay}
        if "transition" in protocol.options and optimizer in get_args(TOptimizer):
            defaults["transition"] = {}
        if "adaptive" in protocol.options:
            section = Adaptive.model_validate(values.get("adaptive") or {})
            defaults |= {"adaptive": section, "precisions": section.precisions}
        return with_milestones(values, defaults)

    @field_validator("precisions")
    @classmethod
    def _each_once(cls, value: tuple[Precision, ...]) -> tuple[Precision, ...]:
        if len(set(value)) < len(value):
            raise ValueError(
                f"a precision is listed twice in {', '.join(map(str, value))}; nothing was scored. "
                "List each once."
            )
        return value

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        image_set(value)
        return value

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        get_policy(value)
        return value

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        check_training(self)
        check_quantized_training(self)
        if self.eval_resize is not None and self.eval_resize < self.image_size:
            raise ValueError(
                f"eval_resize {self.eval_resize} is smaller than image_size {self.image_size}; "
                "nothing was scored. A crop cannot be larger than its image: raise eval_resize."
            )
        for option in options_of_others(self.protocol):
            if getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(
                    f"{option} does not apply to protocol {self.protocol!r}; nothing was scored. "
                    f"Remove {option}, or choose another protocol."
                )
        return self


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that identify a job and determine which rows are comparable."""
    policy = get_policy(recipe.policy)
    teacher = {"teacher_sha256": recipe.teacher_sha256} if recipe.distillation else {}
    return {
        "task": "classification",
        "engine": "torch",
        "dataset": recipe.dataset,
        "split_sha256": image_set(recipe.dataset).split_sha256
        or locate(recipe.dataset, root=recipe.data_root).split_sha256,
        "protocol": protocol_label(recipe),
        "training": training_label(recipe),
        "image_size": recipe.image_size,
        "policy": policy.name,
        "policy_fingerprint": policy.fingerprint,
        "policy_on_board": recipe.protocol
        != "qat",  # networks are trained with their policies there
        **adaptive_facts(recipe),
        "method": "-",  # the checkpoint's, known once it is read
        **teacher,
    }


def _metrics_of(values: dict[str, Any]) -> tuple[str, ...]:
    try:
        return image_set(values.get("dataset", Recipe.model_fields["dataset"].default)).metrics
    except (ValueError, AttributeError):  # not an image set: its own field reports the error
        return ("top1",)
