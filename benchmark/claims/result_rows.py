"""Results as the rows that claims compare: one per recipe, its numbers by pretraining and seed."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lowbit.benchmark.claims.detail_numbers import DETAILS, score_after
from lowbit.benchmark.results.result_file import STDERR, Result, read_result

PRETRAIN = "pretrain."  # before the facts of a backbone's pretraining
LABEL = "protocol_label"  # the board's protocol, with all settings that make it another

Unit = tuple[int | str | None, int | None]
"""A pretraining's seed (or its job, where it has none) and a scoring seed."""


@dataclass(frozen=True)
class Number:
    """A measured number, and its standard error over the test images where it is known."""

    value: float
    stderr: float | None = None


@dataclass(frozen=True)
class Job:
    """A completed job.

    Attributes:
        unit: which pretraining and seed it is.
        origin: the pretraining, or file, that its backbone came from.
        made_in: where that pretraining's result file is; None: it is not known.
        folders: where its own is, and copies of it.
        measured: returns its measurements.
    """

    unit: Unit
    origin: str
    made_in: str | None
    folders: tuple[str, ...]
    measured: Callable[[], list[dict[str, Any]]]

    @cached_property
    def numbers(self) -> dict[tuple[str, str], Number]:
        """What was measured on test images, by metric and precision."""
        return {
            (row["metric"], row["precision"]): Number(row["value"], row[STDERR])
            for row in self.measured()
            if row["split"] == "test" and row["value"] is not None
        }

    def number(self, metric: str, precision: str, after: float | None = None) -> Number | None:
        """Return a number of it, see `Claim`; None where it has none of that kind."""
        if metric in DETAILS:
            read = (dict(DETAILS[metric].read(result)) for result in self._results())
            found = next((by_precision for by_precision in read if by_precision), {})
            return Number(found[precision]) if precision in found else None
        measured = self.numbers.get((metric, precision))
        if after is None or measured is None:
            return measured
        scores = (score_after(result, after, metric) for result in self._results())
        score = next((score for score in scores if score is not None), None)
        return None if score is None else Number(score)

    def _results(self) -> Iterator[Result]:
        yield from filter(None, map(read_result, self.folders))


@dataclass(frozen=True)
class ResultRow:
    """Results of one recipe.

    Attributes:
        facts: of the recipe and the identity, dotted; those of the backbone's pretraining, where its
            result is there, after `pretrain.`.
        name: what the suite calls its backbone, without the seed.
        find_jobs: returns a job for each seed, or several.
    """

    facts: Mapping[str, Any]
    name: str
    find_jobs: Callable[[], list[Job]]
    _values: dict[tuple, dict[Unit, Number]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Its jobs, in the order of their units."""
        return tuple(sorted(self.find_jobs(), key=lambda job: (str(job.unit), job.folders)))

    @cached_property
    def origins(self) -> frozenset[str]:
        """The pretrainings, or files, that its backbones came from."""
        return frozenset(job.origin for job in self.jobs)

    @cached_property
    def length(self) -> str:
        """How long it trained, in words; "" if it did not."""
        return _length(read_result(self.jobs[0].folders[0]))

    @cached_property
    def pretraining(self) -> str:
        """How long its backbone was pretrained, and on what; "" if it was not, or that is not known."""
        made = self.jobs[0].made_in
        length = _length(read_result(made)) if made else ""
        return f"{length} on {self.facts[PRETRAIN + 'dataset']}" if length else ""

    def has(self, wanted: Mapping[str, Any]) -> bool:
        """Whether it has all these facts; a list stands for any of its values, or is the value.

        None is the value of a fact that it does not have.
        """
        return all(_is(self.facts.get(name), value) for name, value in wanted.items())

    def values(self, metric: str, precision: str, after: float | None) -> dict[Unit, Number]:
        """Return its numbers by unit; several jobs of one are averaged."""
        key = (metric, precision, after)
        if key not in self._values:
            found = defaultdict(list)
            for job in self.jobs:
                if (number := job.number(*key)) is not None:
                    found[job.unit].append(number)
            self._values[key] = {unit: _mean(numbers) for unit, numbers in found.items()}
        return self._values[key]


def _length(result: Result | None) -> str:
    """Return how long a job trained, in words; "" if it did not, or it is not known."""
    recipe = result.recipe if result else {}
    epochs, iterations = recipe.get("epochs"), recipe.get("iterations")
    if _counts(iterations):
        return f"{iterations:,} iterations"
    if not _counts(epochs):
        return ""
    steps = _steps(result)
    return f"{epochs:,} epochs" + (f" ({steps:,} steps)" if steps else "")


def _steps(result: Result) -> int | None:
    """Return the steps of a training by its epochs; None where they are not known."""
    if result.stage == "pretrain":
        steps = result.details.get("steps")
        return steps if _counts(steps) else None
    images = _mapping(result.details.get("labels")).get("images")  # the labelled ones, of `semi`
    images = images or _mapping(result.details.get("images")).get("train")
    batch = result.recipe.get("batch_size")
    if not (_counts(images) and _counts(batch)):
        return None
    whole, left = divmod(images, batch)
    return result.recipe["epochs"] * max(whole + (left > 1), 1)  # as training draws minibatches


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is(found: Any, wanted: Any) -> bool:
    return found == wanted or (isinstance(wanted, list | tuple) and found in wanted)


def _mean(numbers: list[Number]) -> Number:
    if len(numbers) == 1:
        return numbers[0]
    errors = [number.stderr for number in numbers if number.stderr is not None]
    return Number(
        sum(number.value for number in numbers) / len(numbers),
        sum(errors) / len(errors) if len(errors) == len(numbers) else None,
    )
