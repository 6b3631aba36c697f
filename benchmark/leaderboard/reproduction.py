"""Compare published numbers with ours: reproduced, different, or not run yet.

A job is set against a published number only where its suite says so (`published`, see
`lowbit.benchmark.published.reproduction_targets`), never by likeness of labels; tolerances are stated in
`benchmark/published/tables.yaml`.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from lowbit.benchmark.leaderboard.adaptive_bits import delta_b
from lowbit.benchmark.planning.plan_file import PlannedJob, PlannedSuite
from lowbit.benchmark.published.reproduction_targets import DELTA_B, GPU_HOURS, claimed_rows
from lowbit.benchmark.published.selection import KEY, Row, published_results
from lowbit.benchmark.published.tolerances import Table, tables
from lowbit.benchmark.results.comparability import RANKED
from lowbit.benchmark.results.result_file import DEVICE, SECONDS
from lowbit.benchmark.statistics.ranking import summarize

Status = Literal["reproduced", "differs", "not comparable", "not run", "failed"]
STATUSES: tuple[Status, ...] = ("reproduced", "differs", "not comparable", "failed", "not run")

# What a metric of a paper is called here, where it is called otherwise.
_METRICS = {
    "top1_mean5": ("top1",),
    "top1_std5": ("top1",),
    "AP_bb": ("AP",),
    "AP_bb_final": ("AP",),
    "AP_bb@1k_iter": ("AP@1000",),
    "AP_S": ("APs",),
    "AP_M": ("APm",),
    "AP_L": ("APl",),
}
_VOC_2007 = "VOC07 test"  # sets whose AP is by VOC's 2007 metric
_SPREADS = ("top1_std5",)  # metrics that are a standard deviation over seeds
_ROUNDING = 1e-9  # of a difference that is exactly the tolerance
_INDIVIDUAL = "individual"  # the adaptive method whose networks Delta_B is relative to


@dataclass(frozen=True)
class Reproduced:
    """A published number and the outcome of its reproduction.

    Attributes:
        paper, table, system, dataset, architecture, protocol, precision, metric: which number it is.
        published: the number, `printed` its text; None, "drawn": the paper draws or tells it without one.
        doubt: why it cannot be read beyond doubt in the source; "": it can.
        ours: the mean over seeds; None: there is none.
        sd: standard deviation over seeds; None with fewer than two.
        n_seeds: seeds behind `ours`.
        difference: ours less published.
        tolerance: how far it may be; None: the numbers cannot be compared.
        status: one of `STATUSES`.
        reason: why it is not comparable, failed or did not run; what of it is still missing.
        differs: what is known to differ from the published experiment.
        suite: the suite that measures it; None: no suite does.
        command: what runs that suite; None: no shipped suite does.
        jobs: ids of the planned jobs that measure it.
    """

    paper: str
    table: str
    system: str
    dataset: str
    architecture: str
    protocol: str
    precision: str
    metric: str
    published: float | None
    printed: str
    doubt: str
    ours: float | None
    sd: float | None
    n_seeds: int
    difference: float | None
    tolerance: float | None
    status: Status
    reason: str
    differs: str
    suite: str | None
    command: str | None
    jobs: tuple[str, ...]


@dataclass(frozen=True)
class _Claim:
    """A job that measures a published number, and the suite it is planned in."""

    job: PlannedJob
    suite: PlannedSuite


@dataclass(frozen=True)
class _Ours:
    """Our values of a published number, one per seed, or why there are none."""

    values: tuple[float, ...] = ()
    status: Status = "not run"
    reason: str = ""


_Record = Mapping[str, Any]
_Records = Mapping[str, list[_Record]]  # of the results frame, by job


def reproduce(frame: pd.DataFrame, planned: Iterable[PlannedSuite]) -> list[Reproduced]:
    """Set every published number of a reproduced table against ours, in the order of the file.

    Args:
        frame: the results frame; published and self-reported rows in it count for nothing.
        planned: the suites that were planned, of which every job says what it is to reproduce.

    Returns:
        A row for each number of the tables in `tables.yaml`, and of others that a planned job claims.
    """
    claims = _claims(planned)
    known = tables()
    records = _records(
        frame, {job.id for c in claims.values() for claim in c for job in _read(claim)}
    )
    return [
        _reproduced(
            row, known.get((row["paper"], row["table"])), claims.get(_key(row), []), records
        )
        for row in published_results()
        if _key(row) in claims or (row["paper"], row["table"]) in known
    ]


def to_frame(reproduced: Sequence[Reproduced]) -> pd.DataFrame:
    """Return the rows as a frame, a column an attribute; jobs are joined by spaces."""
    columns = list(Reproduced.__dataclass_fields__)
    frame = pd.DataFrame([vars(row) for row in reproduced], columns=columns)
    return frame.assign(jobs=frame["jobs"].map(" ".join))


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in KEY)


def _claims(planned: Iterable[PlannedSuite]) -> dict[tuple[str, ...], list[_Claim]]:
    """Return for each published number the jobs that measure it, each once."""
    found: dict[tuple[str, ...], dict[str, _Claim]] = defaultdict(dict)
    for suite in planned:
        for job in suite.jobs:
            for row in claimed_rows(job.published, job.precisions) if job.published else ():
                found[_key(row)].setdefault(job.id, _Claim(job, suite))
    return {key: list(by_job.values()) for key, by_job in found.items()}


def _read(claim: _Claim) -> list[PlannedJob]:
    """Return the jobs whose results a claim needs."""
    return [claim.job, *_individual(claim)]


def _records(frame: pd.DataFrame, jobs: set[str]) -> _Records:
    ours = frame[frame["job_id"].isin(jobs) & frame["source"].isin(RANKED)]
    found = defaultdict(list)
    for record in ours.to_dict("records"):
        found[record["job_id"]].append(record)
    return found


def _reproduced(
    row: Row, table: Table | None, claims: list[_Claim], records: _Records
) -> Reproduced:
    measure = {DELTA_B: _delta, GPU_HOURS: _hours}.get(row["metric"])
    ours = measure(claims, records) if measure else _ours(row, claims, records)
    summary = summarize(ours.values) if ours.values else None
    spread = row["metric"] in _SPREADS
    value = summary and (summary.sd if spread else summary.mean)
    if value is not None and math.isnan(value):
        value, ours = None, _Ours(reason="one seed has ended, and a standard deviation takes two")
    published = float(row["value"]) if row["value"] else None
    difference = None if value is None or published is None else value - published
    without = table and table.why_without(row)
    tolerance = table.tolerance_of(row) if table and not without else None
    status, reason = ours.status, ours.reason
    if without:
        status, reason = "not comparable", without
    elif value is not None and published is None:
        status, reason = "not comparable", f"drawn or told without a number: {row['notes']}"
    elif value is not None and tolerance is None:
        status = "not comparable"
        reason = ours.reason or (
            table.differs if table else "no tolerance is stated for this table"
        )
    elif value is not None:
        status = "reproduced" if abs(difference) <= tolerance + _ROUNDING else "differs"
    return Reproduced(
        **{column: row[column] for column in KEY},
        published=published,
        printed=row["value"] or "drawn",
        doubt=row["notes"] if row["notes"].startswith("ocr-ambiguous") else "",
        ours=value,
        sd=None if summary is None or spread or summary.n < 2 else summary.sd,
        n_seeds=summary.n if summary else 0,
        difference=difference,
        tolerance=tolerance,
        status=status,
        reason=reason,
        differs=table.differs if table else "",
        suite=table.suite if table else claims[0].suite.name,
        command=f"lowbit-bench run configs/suites/{table.suite}.yaml" if table else None,
        jobs=tuple(claim.job.id for claim in claims),
    )


def _ours(row: Row, claims: list[_Claim], records: _Records) -> _Ours:
    """Return the values of a published number, a seed each: several jobs of one are averaged first."""
    metrics = _METRICS.get(row["metric"], (row["metric"],))
    if row["dataset"].endswith(_VOC_2007):  # beside which a job may have COCO's
        metrics = (f"{row['metric']}_voc07",)
    by_seed = defaultdict(list)
    for claim in claims:
        for record in _tested(records.get(claim.job.id, ())):
            if record["metric"] in metrics and record["precision"] == row["precision"]:
                by_seed[str(record["seed"])].append(float(record["value"]))
    if not by_seed:
        return _why_none(row, claims, records)
    missing = sum(not any(_tested(records.get(claim.job.id, ()))) for claim in claims)
    said = f"{missing} of {len(claims)} jobs have no number yet" if missing else ""
    return _Ours(tuple(sum(v) / len(v) for v in by_seed.values()), reason=said)


def _why_none(row: Row, claims: list[_Claim], records: _Records) -> _Ours:
    found = [record for claim in claims for record in records.get(claim.job.id, ())]
    for status, shown in (("failed", "failed"), ("skipped", "not run")):
        if reasons := sorted({str(r["reason"]) for r in found if r["status"] == status}):
            return _Ours(status=shown, reason="; ".join(reasons))
    if metrics := sorted({r["metric"] for r in _tested(found)}):
        said = f"the job measured {', '.join(metrics)}, not {row['metric']} at {row['precision']}"
        return _Ours(status="not comparable", reason=said)
    return _Ours()


def _tested(records: Iterable[_Record]) -> list[_Record]:
    return [r for r in records if r["status"] == "completed" and r["split"] == "test"]


def _delta(claims: list[_Claim], records: _Records) -> _Ours:
    """Return Delta_B of the networks at several precisions, relative to those at one each."""
    if not claims:
        return _Ours()
    joint = _accuracies((claim.job for claim in claims), records)
    alone = _accuracies((job for claim in claims for job in _individual(claim)), records)
    if not joint:
        return _why_none({"metric": "top1", "precision": "any"}, claims, records)
    if missing := sorted(joint.keys() - alone.keys()):
        return _Ours(reason=f"no network trained at {', '.join(missing)} alone has a number yet")
    return _Ours((delta_b(joint, alone),))


def _hours(claims: list[_Claim], records: _Records) -> _Ours:
    """Return the hours that a job took on its device, over the precisions that it trained."""
    by_seed, devices = defaultdict(list), set()
    for claim in claims:
        trained = [precision for precision in claim.job.precisions if precision != "FP"]
        for record in _tested(records.get(claim.job.id, ()))[:1]:
            if trained and not math.isnan(record[SECONDS]):
                by_seed[str(record["seed"])].append(record[SECONDS] / 3600 / len(trained))
                devices.add(record[DEVICE])
    if not by_seed:
        return _why_none({"metric": GPU_HOURS, "precision": "any"}, claims, records)
    said = (
        f"hours of another machine ({', '.join(sorted(devices))}), a precision's share of the job's"
    )
    return _Ours(tuple(sum(v) / len(v) for v in by_seed.values()), reason=said)


def _individual(claim: _Claim) -> list[PlannedJob]:
    """Return the jobs of one network a precision that a Delta_B is relative to."""
    if DELTA_B not in {row["metric"] for row in claimed_rows(claim.job.published, ())}:
        return []
    return [
        job
        for job in claim.suite.jobs
        if job.checkpoint == claim.job.checkpoint
        and job.facts.get("dataset") == claim.job.facts.get("dataset")
        and job.facts.get("adaptive_method") == _INDIVIDUAL
    ]


def _accuracies(jobs: Iterable[PlannedJob], records: _Records) -> dict[str, float]:
    """Return the mean accuracy of jobs at each precision they were trained at."""
    found = defaultdict(list)
    for job in jobs:
        for record in _tested(records.get(job.id, ())):
            if record["metric"] == "top1" and record.get("zero_shot") not in (True, 1):
                found[record["precision"]].append(float(record["value"]))
    return {precision: sum(values) / len(values) for precision, values in found.items()}
