"""What became of a bundle, in lines for people."""

from collections import defaultdict
from collections.abc import Iterator

from lowbit.benchmark.results.result_file import Result
from lowbit.benchmark.submissions.store import Submission

_SHOWN = 3  # jobs of a reason that are named


def describe(submission: Submission) -> Iterator[str]:
    """Say who sent what, and what became of each job, alike ones together."""
    count = len(submission.results)
    entry = submission.entry
    yield f"{entry.name}, by {entry.submitter}: {count} job{'s' if count > 1 else ''}"
    alike = defaultdict(list)
    for job_id, verdict in submission.verdicts.items():
        alike[verdict.source, verdict.reason].append(submission.results[job_id])
    for (source, reason), results in sorted(alike.items(), key=lambda item: item[0], reverse=True):
        yield f"  {source} ({len(results)}): {reason}"
        for result in results[:_SHOWN]:
            yield f"    {result.job_id}  {_title(result)}"
        if len(results) > _SHOWN:
            yield f"    and {len(results) - _SHOWN} more"


def compare(theirs: Result, own: Result) -> str:
    """Say how far two results of one job are from one another."""
    values = {(m.split, m.precision, m.metric): m.value for m in own.measurements}
    apart = [
        abs(m.value - values[key])
        for m in theirs.measurements
        if (key := (m.split, m.precision, m.metric)) in values
    ]
    said = "they have no number in common"
    if apart:
        said = f"of {len(apart)} numbers the farthest differ by {max(apart):.2f}"
    return f"{theirs.job_id} also ran here, and the board shows that one: {said}"


def _title(result: Result) -> str:
    facts = [result.identity.get(key) for key in ("dataset", "protocol")]
    seed = f"seed {result.recipe['seed']}" if "seed" in result.recipe else None
    words = [result.stage, result.checkpoint.name, *facts, "/".join(result.precisions), seed]
    return " ".join(str(word) for word in words if word not in (None, "-"))
