"""Choose the jobs for a time budget: the cheapest information first.

A scored job gives information on as many cells of the board as it has precisions. Of one checkpoint
under one recipe the first seed gives a whole unit for each, since there was nothing; the k-th takes the
variance of the mean over seeds from 1/(k-1) to 1/k, and gives 1/(k(k-1)): 1/2, 1/6, 1/12, ... Making a
checkpoint or a detector gives nothing by itself: what is needed and not there is paid for together
with the jobs that need it, as many of them as make an hour of the whole worth most.

The choice is greedy: always the jobs with the most information per hour among those that fit.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from lowbit.benchmark.planning.job import Job, canonical_json
from lowbit.benchmark.planning.plan import Plan
from lowbit.benchmark.recipes.stages import STAGES
from lowbit.benchmark.scheduling.estimate import Estimate

_INSTANT = 1e-3  # s; no job is assumed to be quicker


@dataclass(frozen=True)
class Choice:
    """The jobs that fit a budget.

    Attributes:
        plan: the chosen jobs, and those that are finished.
        seconds: that the chosen ones take, one after another.
        left_out: the others, with the reason.
    """

    plan: Plan
    seconds: float
    left_out: dict[str, str]


def choose(
    plan: Plan,
    estimates: Mapping[str, Estimate],
    *,
    seconds: float,
    workers: int,
    finished: Collection[str],
) -> Choice:
    """Choose the jobs of a plan that are worth most in the time given.

    Args:
        plan: all jobs.
        estimates: of those that would run; a job without seconds is left out.
        seconds: the time there is.
        workers: jobs at once.
        finished: ids of jobs that cost nothing any more.
    """
    left_out: dict[str, str] = {}
    cost = {job_id: e.seconds for job_id, e in estimates.items() if e.seconds is not None}
    worth = _information(plan, finished)
    waiting: dict[str, frozenset[str]] = {}  # the needs of each job that have not been made
    for job in plan.jobs.values():
        if job.id in finished:
            continue
        needs = _unmet(job, plan, estimates, finished)
        if not {job.id, *needs} <= cost.keys():
            left_out[job.id] = "its time cannot be estimated, or that of a job it needs"
        elif _chain(job.id, plan, cost) > seconds:
            left_out[job.id] = "it takes longer than the budget, with what it needs"
        else:
            waiting[job.id] = needs
    density = {i: worth[i] / max(cost[i], _INSTANT) for i in waiting}
    order = sorted((i for i in waiting if worth[i]), key=density.get, reverse=True)
    chosen: set[str] = set()
    left = seconds * workers
    while bundle := _best_bundle(order, waiting, worth, cost, left):
        left -= sum(cost[job_id] for job_id in bundle)
        chosen |= bundle
        order = [job_id for job_id in order if job_id not in bundle]
        waiting = {job_id: needs - bundle for job_id, needs in waiting.items()}
    for job_id in waiting.keys() - chosen:
        left_out[job_id] = "it does not fit the budget"
    jobs = {i: job for i, job in plan.jobs.items() if i in chosen or i in finished}
    return Choice(replace(plan, jobs=jobs), seconds * workers - left, left_out)


def _best_bundle(
    order: Sequence[str],
    waiting: Mapping[str, frozenset[str]],
    worth: Mapping[str, float],
    cost: Mapping[str, float],
    left: float,
) -> set[str]:
    """Return the jobs, with their needs, that are worth most per hour; none if nothing fits."""
    alike = defaultdict(list)  # jobs by their needs, in descending order of worth per hour
    for job_id in order:
        alike[waiting[job_id]].append(job_id)
    best: set[str] = set()
    most = 0.0
    for needs, jobs in alike.items():
        bundle = set(needs)
        gained, spent = (sum(of[need] for need in needs) for of in (worth, cost))
        if spent > left:
            continue
        for job_id in jobs:
            if spent + cost[job_id] > left:
                continue
            if gained * cost[job_id] > worth[job_id] * spent:
                break  # from here on the mean decreases
            bundle.add(job_id)
            gained, spent = gained + worth[job_id], spent + cost[job_id]
        if gained > most * max(spent, _INSTANT):
            best, most = bundle, gained / max(spent, _INSTANT)
    return best


def _information(plan: Plan, finished: Collection[str]) -> dict[str, float]:
    """Return each job's worth; a checkpoint made for other jobs is worth nothing by itself."""
    needed = plan.needed
    seeds: Counter[str] = Counter()
    worth = {}
    for job in sorted(plan.jobs.values(), key=lambda job: job.id not in finished):
        fields = {name: value for name, value in job.recipe.items() if name != "seed"}
        cell = canonical_json([job.stage, job.label.checkpoint, fields])
        seeds[cell] += 1
        k = seeds[cell]
        share = 1.0 if k == 1 else 1 / (k * (k - 1))
        made = job.stage == STAGES[0] and job.id in needed
        worth[job.id] = 0.0 if made else share * len(job.precisions)
    return worth


def _unmet(
    job: Job, plan: Plan, estimates: Mapping[str, Estimate], finished: Collection[str]
) -> frozenset[str]:
    """Return the jobs that have to run before one can, or before it is as quick as estimated.

    Those outside the plan have completed.
    """
    found: set[str] = set()
    waiting = [job.id]
    while waiting:
        one = waiting.pop()
        before = [*plan.jobs[one].needs, estimates[one].follows if one in estimates else None]
        new = {i for i in before if i in plan.jobs and i not in finished and i not in found}
        found |= new
        waiting += new
    return frozenset(found)


def _chain(job_id: str, plan: Plan, cost: Mapping[str, float]) -> float:
    """Return how long a job and its needs take, however many run at once."""
    before = (_chain(need, plan, cost) for need in plan.jobs[job_id].needs if need in cost)
    return cost[job_id] + max(before, default=0.0)
