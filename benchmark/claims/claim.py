"""What the papers claim, as statements that results can decide: the file `configs/claims.yaml`.

    claims:
      - id: ssql-linear-3w3a
        paper: SSQL
        table: Table 11
        says: SSQL's frozen features lose less accuracy from full precision to 3w3a than SimSiam's.
        a: {method: SSQL}                            # the side that is said to be better
        b: {method: SimSiam}
        where: {protocol: [linear, linear-exact]}    # what results of both sides have
        datasets: [cifar10, pets]                    # the paper's; other data are other scales
        precisions: [3w3a]
        less: {precisions: [FP]}                     # the difference there is subtracted
        metric: top1
        found: 17.6                                  # points, by the paper
        matters: 1.0                                 # the smallest difference that would matter
        published: {a: SSQL, b: SimSiam, where: {protocol: "imagenet_pretrain>linear"}}

Sides and places are named by the facts of results: any field of a recipe, dotted, of the backbone's
pretraining with `pretrain.` before it, and `method`, `dataset`, `architecture`, `policy`, `task`. Nothing here
refers to a suite, so the results of every suite count.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from lowbit.benchmark.claims.decide import Goal
from lowbit.benchmark.claims.detail_numbers import DETAILS
from lowbit.benchmark.claims.known_names import check_dataset, check_fact, check_precision
from lowbit.benchmark.published import PAPERS
from lowbit.benchmark.published.selection import check, matching, published_scores
from lowbit.benchmark.recipes.errors import RecipeError, explain
from lowbit.benchmark.recipes.yaml_files import load_yaml
from lowbit.common.input_files.strict_model import StrictModel
from lowbit.common.shipped_configs import shipped_config
from lowbit.common.suggest import did_you_mean

# metrics of measurements
MEASURED = ("top1", "mean_per_class", "mAP", "AP", "AP50", "AP75", "AP_voc07")
_ROUNDED = 0.0051  # `found` has two decimals


def _checked_facts(facts: dict[str, Any]) -> dict[str, Any]:
    for name, value in facts.items():
        check_fact(name, value)
    return facts


Facts = Annotated[dict[str, Any], AfterValidator(_checked_facts)]
Precisions = Annotated[
    tuple[str, ...], AfterValidator(lambda each: tuple(map(check_precision, each)))
]
DataSets = Annotated[tuple[str, ...], AfterValidator(lambda each: tuple(map(check_dataset, each)))]
Columns = dict[str, Any]  # of the published numbers, with the values wanted
Side = str | list[str] | Columns  # systems, or other columns too
_PAIRED = ("dataset", "architecture", "protocol", "precision")  # in which a pair of numbers agrees


class Place(StrictModel):
    """Where the difference is taken that is subtracted; what it does not say is as in the claim."""

    where: Facts = Field({}, description="facts that differ from the claim's")
    precisions: Precisions = Field((), description="its precisions; empty: the claim's")


class PublishedSides(StrictModel):
    """The published numbers of both sides, by columns of `benchmark/published/published.csv`."""

    a: Side = Field(description="the system or systems, or other columns too")
    b: Side = Field(description="of the other side")
    where: Columns = Field({}, description="what both have, besides paper, table and precision")
    less: Columns = Field({}, description="what those subtracted have instead")


class Claim(StrictModel):
    """A statement with a source that results can decide."""

    id: str = Field(
        pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", description="its name in commands and links"
    )
    paper: str = Field(description="as in the published numbers")
    table: str | tuple[str, ...] = Field(description="table, figure or section that it is made in")
    says: str = Field(min_length=1, description="the claim, a sentence in our words")
    a: Facts = Field(min_length=1, description="facts of the side that is said to have more")
    b: Facts | None = Field(None, description="of the other side; null: `a` alone is measured")
    where: Facts = Field({}, description="facts that both sides have")
    datasets: DataSets = Field(description="the paper's image sets")
    elsewhere: bool = Field(
        True, description="whether other image sets can decide it; false: it is about these"
    )
    precisions: Precisions = Field(min_length=1, description="whose mean counts; FP, or as 4w4a")
    less: Place | None = Field(None, description="subtract the difference in another place")
    metric: str = Field(
        "top1", description=f"{' | '.join(MEASURED)}, or of the training {' | '.join(DETAILS)}"
    )
    after: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="detection: after this share of the iterations; null: at the end",
    )
    within: bool = Field(
        False, description="whether it says that the difference stays within ± `matters`"
    )
    found: float | None = Field(
        None, description="by the paper, in the metric's unit; null: no number"
    )
    matters: float = Field(gt=0, description="the smallest difference that would matter")
    published: PublishedSides | None = Field(None, description="which numbers `found` is made of")
    note: str = Field("", description="how our measure differs from the paper's")

    @property
    def goal(self) -> Goal:
        """What it says of the difference."""
        return Goal("within" if self.within else "more", self.matters)

    @property
    def source(self) -> str:
        """The paper and the table, for people."""
        return (
            f"{self.paper}, {self.table if isinstance(self.table, str) else ', '.join(self.table)}"
        )

    @property
    def unit(self) -> str:
        """The unit of the difference."""
        return DETAILS[self.metric].unit if self.metric in DETAILS else "points"

    @cached_property
    def published_difference(self) -> float | None:
        """The mean difference of the published numbers; None: there is none."""
        if self.published is None:
            return None
        said = self.published
        shared = {
            "paper": self.paper,
            "table": self.table,
            "precision": self.precisions,
        } | said.where
        there = _mean_difference(said, shared)
        if self.less is None:
            return there
        less = shared | ({"precision": self.less.precisions} if self.less.precisions else {})
        return there - _mean_difference(said, less | said.less)

    @field_validator("paper")
    @classmethod
    def _known_paper(cls, value: str) -> str:
        if value not in PAPERS:
            raise ValueError(
                f"there is no paper {value!r}.{did_you_mean(value, PAPERS)} Known: {', '.join(PAPERS)}"
            )
        return value

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        known = (*MEASURED, *DETAILS)
        if value not in known:
            raise ValueError(
                f"there is no metric {value!r}.{did_you_mean(value, known)} Known: {', '.join(known)}"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Claim":
        if self.b is None and not self.within:
            raise ValueError(
                "`b` is missing, and only a claim that something stays `within` a bound has one side"
            )
        if self.published is not None and self.found is None:
            raise ValueError("`published` gives a number: write it as `found`")
        if (derived := self.published_difference) is not None and abs(
            derived - self.found
        ) > _ROUNDED:
            raise ValueError(
                f"`found` is {self.found:g}, and the published numbers give {derived:.2f}"
            )
        return self


class Claims(StrictModel):
    """A file of claims."""

    claims: tuple[Claim, ...] = Field(description="the claims")

    @model_validator(mode="after")
    def _each_once(self) -> "Claims":
        ids = [claim.id for claim in self.claims]
        if repeated := {name for name in ids if ids.count(name) > 1}:
            raise ValueError(f"the id {sorted(repeated)[0]!r} is given twice; give each its own")
        return self


def load_claims(path: Path | str | None = None) -> tuple[Claim, ...]:
    """Return the claims of a file; None: those that come with lowbit-bench.

    Raises:
        RecipeError: it cannot be read, or a name or a number in it is wrong.
    """
    path = path or shipped_config("configs/claims")
    try:
        return Claims.model_validate(load_yaml(path)).claims
    except ValidationError as error:
        raise RecipeError(explain(error, Claims, f"{path} (claims)", overrides=False)) from error


def _mean_difference(said: PublishedSides, shared: Mapping[str, Any]) -> float:
    """Return the mean of a - b over the published numbers that differ in the sides' columns alone."""
    sides = [_columns(said.a), _columns(said.b)]
    alike = [name for name in _PAIRED if name not in {*sides[0], *sides[1]}]
    a, b = (_values({**shared, **side}, alike) for side in sides)
    pairs = [(a[key], b[key]) for key in a if key in b]
    if not pairs:
        raise ValueError(
            f"no published numbers of {said.a} and {said.b} differ in nothing else; leave out a column"
        )
    return sum(one - other for one, other in pairs) / len(pairs)


def _columns(side: Side) -> Columns:
    return side if isinstance(side, dict) else {"system": side}


def _values(wanted: Columns, alike: Sequence[str]) -> dict[tuple[str, ...], float]:
    """Return the mean of the published numbers that agree in some columns, by their values there."""
    wanted = {k: list(v) if isinstance(v, tuple) else v for k, v in wanted.items()}
    check(wanted)
    found = defaultdict(list)
    for row in matching(published_scores(), wanted):
        found[tuple(row[name] for name in alike)].append(float(row["value"]))
    return {key: sum(values) / len(values) for key, values in found.items()}
