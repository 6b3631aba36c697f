"""Verdicts on the papers' claims as the documents show them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lowbit.benchmark.claims.claims_text import difference, summary, to_markdown
from lowbit.benchmark.claims.trials import Trial, try_claims

_DECIDED = ("supported", "contradicted")


@cache
def trials_of(evidence: Path) -> tuple[Trial, ...]:
    """Return the trials of all claims on all results kept, which are corrected together."""
    return tuple(try_claims([evidence]))


def claims_table(trials: Sequence[Trial]) -> str:
    """Return a table in Markdown of the trials that were run, and what its verdicts mean."""
    return to_markdown([trial for trial in trials if trial.scale])


def verdict_list(trials: Sequence[Trial]) -> str:
    """Return a list in Markdown: the claims decided, with both differences, and how many were not."""
    lines = []
    for verdict in _DECIDED:
        for trial in (t for t in trials if t.verdict == verdict):
            here = difference(trial.found, trial.claim.unit)
            paper = difference(trial.claim.found)
            lines.append(
                f"  * {verdict}: {trial.claim.says} {here} ({trial.claim.source}: {paper}; "
                f"{trial.scale.protocol or trial.claim.metric}, {trial.scale.data})"
            )
    return "\n".join([*lines, f"  * Of all: {summary(trials)}"])
