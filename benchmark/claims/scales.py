"""At which scales a claim was tried: pairs of rows that differ in its sides, and in little else.

A *scale* is what a result depends on besides the methods: the network, the images it was trained and scored
on, how long, and the protocol. Two rows are compared only at one scale. Their recipes may differ otherwise, as
the papers' do (SSQL and SimSiam have learning rates of their own): each row of the first side is compared
with the rows of the second that differ from it in the fewest fields.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lowbit.benchmark.claims.claim import Claim, Place
from lowbit.benchmark.claims.result_rows import LABEL, PRETRAIN, ResultRow

UNTRAINED = "untrained"
_RIVAL = "oscillation.method"
# Facts in which the sides of a comparison agree, unless the claim names them.
_IMAGES = ("task", "dataset", "split_sha256", "image_size", "engine", "architecture", "train_on")
_LENGTH = (LABEL, "protocol_version", "epochs", "iterations")
_PRETRAINING = tuple(
    PRETRAIN + name for name in ("dataset", "split", "image_size", "epochs", "architecture")
)


@dataclass(frozen=True)
class Sides:
    """Rows of one scale: of each side, and where the claim subtracts another place, there.

    Attributes:
        a: the first side.
        b: the second; None where there is one side only.
        a_less, b_less: in the place subtracted; the same rows where only its precisions differ.
    """

    a: ResultRow
    b: ResultRow | None
    a_less: ResultRow
    b_less: ResultRow | None

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """Every row, each once."""
        found = (self.a, self.b, self.a_less, self.b_less)
        return tuple({id(row): row for row in found if row is not None}.values())


def rows_of(claim: Claim, side: str, rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Return the rows of side "a" or "b" of a claim."""
    return list(_rows(claim, side, rows, claim.where))


def find_sides(claim: Claim, rows: Sequence[ResultRow]) -> Iterator[Sides]:
    """Yield the pairs of rows that try a claim, one or several a scale."""
    ours = rows_of(claim, "a", rows)
    theirs = rows_of(claim, "b", rows) if claim.b is not None else []
    named = {*claim.a, *(claim.b or ())}
    places = defaultdict(list)  # rows of the second side
    for b in theirs:
        places[_place(b, named)].append(b)
    for a in ours:
        here = places[_place(a, named)] if places else ()
        at_scale = [b for b in here if b is not a and _pretrained_alike(a, b, named)]
        for b in _nearest(a, at_scale, named) if claim.b is not None else [None]:
            for a_less in _less(claim, "a", a, rows):
                for b_less in [None] if b is None else _less(claim, "b", b, rows):
                    yield Sides(a, b, a_less, b_less)


def _rows(
    claim: Claim, side: str, rows: Sequence[ResultRow], where: Mapping[str, Any]
) -> Iterator[ResultRow]:
    wanted = {**where, **getattr(claim, side)}
    for row in rows:
        if not claim.elsewhere and row.facts["dataset"] not in claim.datasets:
            continue
        if "task" not in wanted and row.facts["task"] == "pretrain":
            continue  # it is of the backbone; its scores are rows of their own
        if _RIVAL in row.facts and _RIVAL not in wanted:
            continue  # a plain optimizer is not meant where oscillations are dampened or frozen
        if row.has(wanted):
            yield row


def _less(
    claim: Claim, side: str, row: ResultRow, rows: Sequence[ResultRow]
) -> Iterator[ResultRow]:
    """Yield the rows of the same side in the place that is subtracted."""
    place = claim.less or Place()
    if not place.where:
        yield row
        return
    named = {*place.where, *_LENGTH}
    here = _place(row, named, _IMAGES)
    there = _rows(claim, side, rows, {**claim.where, **place.where})
    there = [r for r in there if _place(r, named, _IMAGES) == here]
    yield from _nearest(row, [r for r in there if _pretrained_alike(row, r, named)], named)


def _place(row: ResultRow, named: set[str], names: Sequence[str] = (*_IMAGES, *_LENGTH)) -> tuple:
    """Return what rows of one scale share besides their pretraining."""
    return tuple(repr(row.facts.get(name)) for name in names if name not in named)


def _pretrained_alike(one: ResultRow, other: ResultRow, named: set[str]) -> bool:
    """Whether the pretrainings are of one scale; an untrained backbone is of every length."""
    if UNTRAINED in (one.facts["method"], other.facts["method"]):
        return True
    return _place(one, named, _PRETRAINING) == _place(other, named, _PRETRAINING)


def _nearest(row: ResultRow, others: Sequence[ResultRow], named: set[str]) -> Iterator[ResultRow]:
    """Yield the rows that differ from a row in the fewest fields."""
    distances = [_distance(row.facts, other.facts, named) for other in others]
    for other, distance in zip(others, distances, strict=True):
        if distance == min(distances):
            yield other


def _distance(one: Mapping[str, Any], other: Mapping[str, Any], named: set[str]) -> int:
    names = (one.keys() | other.keys()) - named
    return sum(one.get(name) != other.get(name) for name in names)
