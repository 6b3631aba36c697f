"""Base of the models of what people write."""

from typing import Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    field_validator,
    model_serializer,
)


class StrictModel(BaseModel):
    """A model that refuses unknown keys and takes no flag for a number; its instances are frozen.

    pydantic reads true as 1, and even a strict `Literal[0, 1]` accepts it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _take_no_flag_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if _has_flag(value) and not _takes_flags(cls.model_fields[info.field_name].annotation):
            raise ValueError("true and false are not allowed here")
        return value


class GrownModel(StrictModel):
    """A strict model that has got fields since ids were first made of it.

    Attributes:
        later: fields that are left out of a dump while they are null, so that what does not set them
            keeps the id from before they existed.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: Any) -> dict[str, Any]:
        return {k: v for k, v in dump(self).items() if v is not None or k not in self.later}


def _has_flag(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_flag, value))
    return isinstance(value, bool)


def _takes_flags(annotation: Any) -> bool:
    if annotation in (bool, Any, object):
        return True
    return any(map(_takes_flags, get_args(annotation)))
