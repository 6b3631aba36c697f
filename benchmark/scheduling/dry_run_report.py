"""The text of a dry run: jobs by stage, obstacles, hours and disk space."""

import shutil
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from lowbit.benchmark.planning.plan import Plan
from lowbit.benchmark.recipes.stages import STAGES
from lowbit.benchmark.scheduling.dry_run import Preview
from lowbit.benchmark.scheduling.estimate import CPU_RATE, GPU_RATE
from lowbit.benchmark.scheduling.time_budget import Choice
from lowbit.common.text import counted, duration, printable, printable_lines, size

LISTED = 40  # jobs; longer plans are listed in groups
_STATES = ("finished", "new", "blocked", "skipped")
_SOURCES = {
    "recipe": "by the time such jobs took here",
    "throughput": "by operations a second measured here",
    "assumed": "at an assumed {rate} operations a second",
}
_INDENT = " " * 4


def describe_plan(
    name: str, rows: Iterable[Preview], *, workers: int, runs_dir: Path, device: str, verbose: bool
) -> str:
    """Describe a plan: its jobs one by one, or in groups if there are many."""
    rows = list(rows)
    blocks = [
        _by_stage(rows),
        *(_listed(rows) if verbose or len(rows) <= LISTED else _grouped(rows)),
        *_obstacles(rows),
        _hours(rows, workers, device),
        _disk(rows, runs_dir),
    ]
    states = Counter(row.state for row in rows)
    totals = ", ".join(f"{states[state]} {state}" for state in _STATES if states[state]) or "none"
    end = f"{printable(name)}: {counted(len(rows), 'job')}: {totals}"
    return "\n".join([*filter(None, blocks), end])


def wall_seconds(rows: Sequence[Preview], workers: int) -> float:
    """Estimate how long the new jobs take: the longest chain, or their total divided among workers."""
    chains: dict[str, float] = {}
    for row in rows:  # a job comes after those it needs
        before = max((chains.get(need, 0.0) for need in row.job.needs), default=0.0)
        chains[row.job.id] = before + (row.estimate.seconds or 0.0)
    total = sum(row.estimate.seconds or 0.0 for row in rows)
    return max(total / workers, max(chains.values(), default=0.0))


def describe_choice(choice: Choice, plan: Plan, *, hours: float, workers: int) -> str:
    """Describe what a budget leaves out."""
    chosen = len(choice.plan.jobs)
    head = (
        f"Budget of {duration(3600 * hours)} with {workers} at once: {duration(choice.seconds)} of "
        f"jobs are chosen; {counted(len(choice.left_out), 'job')} of {chosen + len(choice.left_out)} "
        "are left out"
    )
    groups: Counter[tuple[str, str]] = Counter()
    for job_id, reason in choice.left_out.items():
        job = plan.jobs[job_id]
        facts = job.facts
        words = [
            job.stage,
            facts.get("dataset"),
            facts.get("protocol"),
            f"seed {facts.get('seed')}",
        ]
        shown = " ".join(printable(str(w)) for w in words if w not in (None, "-", "seed None"))
        groups[shown, reason] += 1
    lines = [f"  {count:>5}  {what} ({reason})" for (what, reason), count in groups.items()]
    return "\n".join([f"{head}{':' if lines else '.'}", *lines])


def _by_stage(rows: list[Preview]) -> str:
    head = ("stage", *_STATES, "time", "GPU-hours", "disk")
    table = [head]
    for stage in (*STAGES, None):
        ours = [row for row in rows if stage in (None, row.job.stage)]
        if not ours:
            continue
        states = Counter(row.state for row in ours)
        new = [row.estimate for row in ours if row.state == "new"]
        seconds = [e.seconds for e in new if e.seconds is not None]
        gpu = [e.gpu_hours for e in new if e.gpu_hours is not None]
        disk = sum(e.disk for e in new)
        table.append(
            (
                stage or "all",
                *(str(states[state]) if states[state] else "-" for state in _STATES),
                duration(sum(seconds)) if seconds else "-",
                _gpu_hours(sum(gpu)) if gpu else "-",
                size(disk) if disk else "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    )


def _listed(rows: list[Preview]) -> list[str]:
    lines = []
    for row in rows:
        seconds = row.estimate.seconds if row.state == "new" else None
        took = "" if seconds is None else duration(seconds)
        note = (
            f"  ({printable_lines(row.note)})"
            if row.note and row.state in ("new", "finished")
            else ""
        )
        lines.append(f"  {row.job.id}  {row.state:<8}  {took:>8}  {row.job.title}{note}")
    return ["\n".join(lines)] if lines else []


def _grouped(rows: list[Preview]) -> list[str]:
    groups = defaultdict(list)
    for row in rows:
        facts = row.job.facts
        what = [facts.get("dataset"), facts.get("protocol"), facts.get("training")]
        bits = "" if row.job.stage == "pretrain" else "/".join(row.job.precisions)
        words = " ".join(printable(str(w)) for w in [*what, bits] if w not in (None, "-", ""))
        groups[row.job.stage, words, row.state].append(row)
    lines = []
    for (stage, words, state), alike in groups.items():
        names = {row.job.label.checkpoint for row in alike}
        seeds = {row.job.recipe.get("seed", 0) for row in alike}
        seconds = sum(row.estimate.seconds or 0.0 for row in alike)
        took = duration(seconds) if seconds else ""
        of = f"{counted(len(names), 'checkpoint')}, {counted(len(seeds), 'seed')}"
        lines.append(f"  {len(alike):>5} {state:<8}  {took:>8}  {stage} {words}: {of}")
    return ["\n".join(lines), "(--verbose lists every job.)"]


def _obstacles(rows: list[Preview]) -> list[str]:
    """List each reason once, with the number of jobs it stops."""
    found = defaultdict(list)
    for row in rows:
        if row.state in ("blocked", "skipped"):
            found[row.state, row.note].append(row)
    blocks = []
    for (state, reason), alike in found.items():
        how = "blocked" if state == "blocked" else f"skipped without data{_cost(alike)}"
        blocks.append(
            f"{counted(len(alike), 'job')} {how}:\n{textwrap.indent(printable_lines(reason), _INDENT)}"
        )
    return blocks


def _cost(rows: list[Preview]) -> str:
    """Describe what skipped jobs would take."""
    seconds = sum(row.estimate.seconds or 0.0 for row in rows)
    gpu = sum(row.estimate.gpu_hours or 0.0 for row in rows)
    return f" (they would take {duration(seconds)}; {_gpu_hours(gpu)} GPU-hours)" if seconds else ""


def _hours(rows: list[Preview], workers: int, device: str) -> str:
    new = [row for row in rows if row.state == "new"]
    sources = Counter(row.estimate.source for row in new)
    unknown = sources.pop(None, 0)
    if not new:
        return ""
    unknowns = f"{counted(unknown, 'new job')} could not be estimated."
    if not sources:
        return f"Time: {unknowns}"
    rate = f"{CPU_RATE if device == 'cpu' else GPU_RATE:.2g}"
    how = "; ".join(
        f"{counted(sources[source], 'job')} {text.format(rate=rate)}"
        for source, text in _SOURCES.items()
        if sources[source]
    )
    about = f"Time: about {duration(wall_seconds(new, workers))} with {workers} at once on {device}"
    return f"{about} ({how})." + (f" {unknowns}" if unknown else "")


def _disk(rows: list[Preview], runs_dir: Path) -> str:
    needed = sum(row.estimate.disk for row in rows if row.state == "new")
    there = next(p for p in (runs_dir.absolute(), *runs_dir.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    if not needed:
        return ""
    line = f"Disk: about {size(needed)} needed, {size(free)} free in {runs_dir}."
    return f"{line} THAT IS NOT ENOUGH." if needed > free else line


def _gpu_hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else "<0.1"
