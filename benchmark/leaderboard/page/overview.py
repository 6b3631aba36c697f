"""The head of the page: what was measured, in counts and names."""

from typing import Any

from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.results.comparability import OWN, precision_rank


def content(source: Source) -> dict[str, Any]:
    """Return the names of what was measured in a stable order, and counts of numbers and jobs."""
    own = source.frame[source.frame["source"].isin(OWN)]
    scores = own[(own["status"] == "completed") & (own["task"] != "pretrain")]
    status = own.drop_duplicates("job_id")["status"].value_counts()
    return {
        "checkpoints": sorted(set(scores["checkpoint"])),
        "architectures": sorted(set(scores["architecture"])),
        "datasets": sorted(set(scores["dataset"])),
        "precisions": sorted(set(scores["precision"]), key=precision_rank),
        "seeds": sorted({int(seed) for seed in scores["seed"].dropna().unique()}),
        "numbers": len(scores),
        "jobs": {n: int(status.get(n, 0)) for n in ("completed", "failed", "skipped")},
    }
