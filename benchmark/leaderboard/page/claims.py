"""Claims: what the results of the folder say of the papers' claims."""

from collections import Counter
from typing import Any

from lowbit.benchmark.claims.claims_text import remark, summary
from lowbit.benchmark.claims.decide import VERDICTS
from lowbit.benchmark.claims.trials import Trial, try_claims
from lowbit.benchmark.leaderboard.page.source import Source

_DIGITS = 4


def content(source: Source) -> dict[str, Any]:
    """Return one row a claim and scale that it was tried at, and the claims that were not; else nothing."""
    try:
        trials = try_claims([source.runs_dir])
    except FileNotFoundError:  # no results yet
        return {}
    tried = [trial for trial in trials if trial.scale]
    if not tried:
        return {}
    missing: dict[str, list[str]] = {}
    for trial in trials:
        if not trial.scale:
            missing.setdefault(trial.reason, []).append(trial.claim.says)
    counts = Counter(trial.verdict for trial in tried)
    return {
        "verdicts": VERDICTS,
        "counts": [counts[verdict] for verdict in VERDICTS],
        "rows": [_row(trial) for trial in tried],
        "summary": summary(tried),
        "missing": [{"reason": reason, "claims": said} for reason, said in sorted(missing.items())],
    }


def _row(trial: Trial) -> dict[str, Any]:
    claim, scale = trial.claim, trial.scale
    return {
        "claim": claim.says,
        "paper": claim.paper,
        "source": claim.source,
        "note": claim.note,
        "unit": claim.unit,
        "published": claim.found,
        "matters": claim.matters,
        "within": claim.within,
        **{name: getattr(trial, name) for name in ("verdict", "n", "needed")},
        **{name: _rounded(getattr(trial, name)) for name in ("found", "low", "high", "sd")},
        **{name: getattr(scale, name) for name in ("network", "data", "protocol", "seeds")},
        "training": ", ".join(
            filter(None, (scale.length, scale.pretraining and f"pretrained {scale.pretraining}"))
        ),
        "sides": " against ".join(filter(None, (scale.a, scale.b))),
        "remark": remark(trial),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
