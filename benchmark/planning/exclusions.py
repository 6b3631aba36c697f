"""Jobs that a suite leaves out of the product of its lists.

exclude:
  - {checkpoint: ViT, protocol: finetune}              # a job all of whose facts match
  - {dataset: food101, precision: [3w3a, 2w4a]}        # these precisions of the jobs that match
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.common.input_files.strict_model import StrictModel
from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief, printable

Facts = Mapping[str, frozenset[str]]
"""The facts of a job: for each, the values that match it."""


def _several(value: object) -> object:
    return (value,) if isinstance(value, (str, int)) else value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) else value


Wanted = Annotated[
    tuple[Annotated[str, BeforeValidator(_text)], ...],
    BeforeValidator(_several),
    Field(min_length=1),
]


class Exclusion(StrictModel):
    """Facts of the jobs to leave out; each has one or several values, of which one must match."""

    checkpoint: Wanted | None = Field(None, description="name of the checkpoint")
    method: Wanted | None = Field(None, description="what made the checkpoint, as SSQL")
    architecture: Wanted | None = Field(None, description="of the checkpoint")
    stage: Wanted | None = Field(None, description="transfer | detection")
    recipe: Wanted | None = Field(None, description="file of the recipe, without folder and .yaml")
    dataset: Wanted | None = Field(None, description="image set it is scored on")
    protocol: Wanted | None = Field(None, description="as the recipe, or as the board names it")
    training: Wanted | None = Field(None, description="how a low-bit network is trained, as sgdt")
    policy: Wanted | None = Field(None, description="name of the quantization policy")
    engine: Wanted | None = Field(None, description="of detection")
    seed: Wanted | None = Field(None, description="of the job")
    precision: Wanted | None = Field(None, description="bit-widths, as 4w4a")

    @field_validator("precision")
    @classmethod
    def _canonical(cls, value: Wanted | None) -> Wanted | None:
        from lowbit.quant import Precision  # here, so that --help does not import torch

        return None if value is None else tuple(str(Precision.parse(text)) for text in value)

    @model_validator(mode="after")
    def _says_something(self) -> "Exclusion":
        if not self.wanted:
            raise ValueError(
                "it names nothing, and would leave out everything; name at least one fact of the jobs "
                f"to leave out: {', '.join(type(self).model_fields)}"
            )
        return self

    @property
    def wanted(self) -> dict[str, Wanted]:
        """The given facts."""
        return {name: value for name, value in self if value is not None}


class Exclusions:
    """The exclusions of one suite file; they record matches, to find those that never matched."""

    def __init__(self, listed: Sequence[Exclusion], source: str):
        self._listed = listed
        self._source = source
        self._idle = dict.fromkeys(range(len(listed)))
        self._met: dict[str, set[str]] = defaultdict(set)

    def remaining(self, facts: Facts, precisions: Iterable[str]) -> tuple[str, ...]:
        """Return the remaining precisions of a job; empty: it is left out."""
        left = tuple(precisions)
        for name, known in {**facts, "precision": frozenset(left)}.items():
            self._met[name] |= known
        for index, exclusion in enumerate(self._listed):
            wanted = exclusion.wanted
            named = wanted.pop("precision", None)
            if not all(facts.get(name, frozenset()) & {*value} for name, value in wanted.items()):
                continue
            kept = () if named is None else tuple(p for p in left if p not in named)
            if kept != left:
                self._idle.pop(index, None)
            left = kept
        return left

    def check_all_matched(self) -> None:
        """Refuse an exclusion that left nothing out: it is probably a mistake."""
        for index in self._idle:
            wanted = self._listed[index].wanted
            shown = {name: v[0] if len(v) == 1 else list(v) for name, v in wanted.items()}
            raise RecipeError(
                f"{self._source} (a suite): exclude.{index} {brief(shown)} matches no job; nothing was run. "
                f"{self._hint(wanted)} Correct it, or remove it."
            )

    def _hint(self, wanted: Mapping[str, Wanted]) -> str:
        for name, named in wanted.items():
            known = sorted(self._met[name])
            if not {*named} & {*known}:
                near = did_you_mean(named[0], known)
                there = ", ".join(known) or "none"
                return (
                    f"No job has {name} {printable(' or '.join(named))}.{near} There are: {there}."
                )
        return (
            "Each of its facts exists, but no job has all of them, or an earlier one left it out."
        )
