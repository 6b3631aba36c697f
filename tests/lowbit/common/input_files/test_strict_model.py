"""A flag is no number: not in a field, a list, a union or a Literal."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from lowbit.common.input_files.strict_model import StrictModel


class Inner(StrictModel):
    flag: bool = False
    number: float = 0.0


class Model(StrictModel):
    number: int = 0
    share: float | None = None
    one: Literal[0, 1] | None = None
    several: tuple[Annotated[int, Field(ge=0)], ...] | int = 0
    flag: bool | None = None
    either: bool | Literal["auto"] = "auto"
    anything: dict[str, Any] = {}
    opts: tuple[Any, ...] = ()
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": True},
        {"share": False},
        {"one": True},
        {"several": True},
        {"several": [0, True]},
        {"inner": {"number": True}},
        {"inners": [{"number": False}]},
    ],
)
def test_a_flag_is_refused_where_a_number_is_meant(wrong):
    with pytest.raises(ValidationError, match="true and false are not allowed here"):
        Model.model_validate(wrong)


def test_flags_are_taken_where_they_are_meant():
    right = {
        "flag": True,
        "either": False,
        "anything": {"a": True},
        "opts": ["A", True],
        "inner": {"flag": True},
        "inners": [{"flag": True}],
    }
    found = Model.model_validate({**right, "number": 1, "one": 1, "several": [0, 1]})
    assert found.flag is True and found.either is False and found.inners[0].flag is True
    assert found.opts == ("A", True) and found.one == 1


def test_unknown_keys_are_refused_and_instances_are_frozen():
    with pytest.raises(ValidationError, match="Extra inputs"):
        Model.model_validate({"x": 1})
    with pytest.raises(ValidationError, match="frozen"):
        Model().number = 1
