"""The published numbers that a job should reproduce.

A checkpoint and an entry of a suite may both say `published: {COLUMN: VALUE or VALUES}`, columns of
`benchmark/published/published.csv`. Where they meet, the job reproduces the numbers that match both, at
its own precisions; a checkpoint that says nothing, such as a user's, reproduces nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cache

from lowbit.benchmark.published.selection import (
    Row,
    Selection,
    check,
    matching,
    published_results,
    values,
)
from lowbit.benchmark.recipes.errors import RecipeError

DELTA_B = "Delta_B_percent"  # of one network over several precisions
GPU_HOURS = "gpu_hours_4xA5000"  # of a training, at whichever precision


def claimed_rows(selection: Selection, precisions: Collection[str]) -> list[Row]:
    """Return the published numbers that a job with these precisions reproduces."""
    known = _by_precision()
    answered = (row for precision in (*precisions, None) for row in known.get(precision, ()))
    return matching(answered, selection)


@cache
def _by_precision() -> dict[str | None, list[Row]]:
    """Return the published results by precision; those of none in particular under None."""
    found = defaultdict(list)
    for row in published_results():
        whole = row["metric"] in (DELTA_B, GPU_HOURS)
        found[None if whole else row["precision"]].append(row)
    return found


class ReproductionTargets:
    """The reproduction targets of one plan; records used selections, to find those that match nothing."""

    def __init__(self, source: str):
        self._source = source
        self._met: dict[str, Selection] = {}
        self._useful: set[str] = set()

    def of_job(
        self, owners: Mapping[str, Selection | None], precisions: Sequence[str]
    ) -> Selection | None:
        """Return the selection that a job should reproduce; None: there is no published number.

        Args:
            owners: the owners of `published` selections, by their name in messages.
            precisions: the job's.

        Raises:
            RecipeError: a column or a value does not exist.
        """
        if any(selection is None for selection in owners.values()):
            return None
        for owner, selection in owners.items():
            if owner not in self._met:
                self._check(owner, selection)
                self._met[owner] = selection
        both = _intersection(owners.values())
        if not claimed_rows(both, precisions):
            return None
        self._useful.update(owners)
        return both

    def check_all_useful(self) -> None:
        """Refuse selections that match no planned job."""
        for owner, selection in self._met.items():
            if owner not in self._useful:
                raise RecipeError(
                    f"{self._source} (a suite): {owner}: published {dict(selection)} and what it meets "
                    "select no published number at their precisions; nothing was run. Compare both "
                    "with benchmark/published/published.csv."
                )

    def _check(self, owner: str, selection: Selection) -> None:
        try:
            check(selection)
        except ValueError as error:
            raise RecipeError(f"{self._source} (a suite): {owner}: published: {error}") from error


def _intersection(selections: Collection[Selection]) -> dict[str, list[str]]:
    """Return the selection of the rows that all select."""
    both: dict[str, list[str]] = {}
    for selection in selections:
        for column, wanted in selection.items():
            named = list(values(wanted))
            both[column] = [v for v in both[column] if v in named] if column in both else named
    return both
