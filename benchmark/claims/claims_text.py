"""Trials of claims as text for a terminal, as Markdown, and as JSON."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from lowbit.benchmark.claims.decide import VERDICTS
from lowbit.benchmark.claims.seeds_needed import MOST, POWER
from lowbit.benchmark.claims.trials import Trial
from lowbit.benchmark.statistics.ranking import ALPHA
from lowbit.common.text import counted, printable_lines

_WIDTH, _INDENT = 110, " " * 4
_HEAD = ("Claim", "Source", "Paper", "Here", "Verdict", "Tried with")


def to_text(trials: Sequence[Trial]) -> str:
    """Return the trials of each claim below it, then the claims that were not run, by reason."""
    lines = []
    for claim, group in _by_claim(trial for trial in trials if trial.scale):
        lines += [f"{claim.says} ({claim.source}{_paper(claim)})"]
        lines += [line for trial in group for line in _lines(trial)]
        lines.append("")
    missing: dict[str, list[str]] = {}
    for trial in trials:
        if not trial.scale:
            missing.setdefault(trial.reason, []).append(trial.claim.id)
    if missing:
        lines.append("Not run:")
    for reason, names in sorted(missing.items()):
        lines += _wrapped(f"{reason} ({len(names)}): {', '.join(names)}")
    return printable_lines("\n".join([*lines, "", summary(trials)]))


def to_markdown(trials: Sequence[Trial]) -> str:
    """Return a table with a row a trial, and what its verdicts mean."""
    rows = [_HEAD, *(_cells(trial) for trial in trials)]
    head, *body = (f"| {' | '.join(map(_escaped, row))} |" for row in rows)
    lines = [head, "|---" * len(_HEAD) + "|", *body, "", summary(trials)]
    return printable_lines("\n".join(lines))


def to_json(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return a mapping a trial, the claim's own fields among it."""
    return [
        {
            "claim": trial.claim.id,
            **{name: value for name, value in vars(trial).items() if name != "claim"},
            "scale": trial.scale and asdict(trial.scale),
            "says": trial.claim.says,
            "paper": trial.claim.paper,
            "table": trial.claim.table,
            "published": trial.claim.found,
            "matters": trial.claim.matters,
            "within": trial.claim.within,
            "unit": trial.claim.unit,
        }
        for trial in trials
    ]


def summary(trials: Sequence[Trial]) -> str:
    """Say how many verdicts of each kind there are, and how they were corrected."""
    counts = Counter(trial.verdict for trial in trials)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    tried = sum(trial.p is not None for trial in trials)
    if not tried:
        return f"{said}."
    return (
        f"{said}. Intervals are over pairs of seeds, corrected by Holm for {counted(tried, 'trial')}: the "
        f"chance that any verdict is wrong is at most {100 * ALPHA:g} %."
    )


def difference(value: float | None, unit: str = "") -> str:
    """Format a difference with its sign; "–" for none.

    Example:
        >>> difference(1.234, "points"), difference(-0.5), difference(None)
        ('+1.23 points', '−0.50', '–')
    """
    if value is None:
        return "–"
    text = f"{value:+.2f}".replace("-", "−")
    return f"{text} {unit}".rstrip()


def found_here(trial: Trial) -> str:
    """Return the difference of a trial with its interval."""
    interval = ""
    if trial.low is not None:
        interval = f" [{difference(trial.low)}, {difference(trial.high)}]"
    return f"{difference(trial.found, trial.claim.unit)}{interval}"


def remark(trial: Trial) -> str:
    """Say what else there is to know of a trial: why, how many seeds would decide it, the images."""
    said = [trial.reason]
    if trial.verdict == "undecided" and trial.low is not None:
        what = "pretrainings" if trial.scale and "pretraining" in trial.scale.seeds else "seeds"
        said.append(
            f"{trial.needed:,} {what} would decide it with a probability of {100 * POWER:g} %"
            if trial.needed
            else f"not even {MOST:,} {what} would decide a difference like this"
        )
    error = trial.image_error
    if (
        error
        and trial.verdict == "supported"
        and not trial.claim.within
        and trial.found < 2 * error
    ):
        said.append(f"within the uncertainty of these test images, ± {2 * error:.1f}")
    return "; ".join(filter(None, said))


def _by_claim(trials: Iterable[Trial]) -> Iterator[tuple[Any, list[Trial]]]:
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.claim.id, []).append(trial)
    for group in groups.values():
        yield group[0].claim, group


def _paper(claim: Any) -> str:
    return "" if claim.found is None else f": {difference(claim.found, claim.unit)}"


def _lines(trial: Trial) -> Iterator[str]:
    words = "; ".join(filter(None, (str(trial.scale), remark(trial))))
    yield from _wrapped(f"{trial.verdict:<13}{found_here(trial)}; {words}")


def _wrapped(text: str) -> list[str]:
    indents = {"initial_indent": _INDENT, "subsequent_indent": _INDENT * 2}
    return textwrap.wrap(text, _WIDTH, break_on_hyphens=False, **indents)


def _cells(trial: Trial) -> tuple[str, ...]:
    claim = trial.claim
    verdict = f"{trial.verdict}; {said}" if (said := remark(trial)) else trial.verdict
    paper = difference(claim.found, claim.unit)
    here = found_here(trial)
    return (claim.says, claim.source, paper, here, verdict, str(trial.scale or "–"))


def _escaped(text: str) -> str:
    return (
        text.replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "\\<")
        .replace("*", "\\*")
        .replace("_", "\\_")
    )
