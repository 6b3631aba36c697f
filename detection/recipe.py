"""The recipe of a detection job, with its fields checked against each other."""

from typing import Any

from pydantic import field_validator, model_validator

from lowbit.detection.datasets.catalog import check_name
from lowbit.detection.recipe_checks import check_recipe
from lowbit.detection.recipe_fields import RecipeFields
from lowbit.quant import Precision

VERSION = 2  # of the protocol; raised when the same recipe gives different numbers
SCENES = {"train_images": 2000, "test_images": 300}  # of the demo; other sets are used whole


class Recipe(RecipeFields):
    """A detection recipe with consistent fields."""

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        return check_name(value)

    @field_validator("precisions")
    @classmethod
    def _each_once(cls, value: tuple[Precision, ...]) -> tuple[Precision, ...]:
        if len(set(value)) < len(value):
            raise ValueError(
                f"a precision is given twice in {', '.join(map(str, value))}; nothing was scored. "
                "Name each once."
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _count_scenes(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("dataset", "digit-scenes") == "digit-scenes":
            given = {key: value for key, value in fields.items() if value is not None}
            return {**fields, **{k: given.get(k, n) for k, n in SCENES.items()}}
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        check_recipe(self)
        return self
