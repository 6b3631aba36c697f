"""Messages of a run about its jobs: when each ends, and about those that did not complete."""

import textwrap
from collections import Counter, defaultdict

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.results.build_result import LOG
from lowbit.benchmark.results.result_file import Result
from lowbit.benchmark.scheduling.schedule import Schedule
from lowbit.common.text import printable, printable_lines

_INDENT = " " * 16
_LONGEST = 1000  # characters of a line


def describe_ending(job: Job, result: Result) -> str:
    """Describe in one line how a job ended: its main numbers, or why there are none."""
    if result.status != "completed":
        return f"{result.status.upper()}: {job.title}: {first_line(result.reason)}"
    return f"completed in {result.seconds:.1f} s: {describe_result(job.title, result)}"


def describe_result(title: str, result: Result) -> str:
    """Describe a completed job by its main numbers, by precision."""
    main = [m for m in result.measurements if m.split != "val"]
    main = [m for m in main if m.metric == main[0].metric]
    if not main:
        return title
    unit, digits = (" %", ".1f") if main[0].unit == "%" else ("", ".3g")
    values = ", ".join(f"{m.precision} {m.value:{digits}}" for m in main)
    return printable(f"{title}: {main[0].metric} {values}{unit}", _LONGEST)


def describe_failures(schedule: Schedule) -> str:
    """List the jobs that have not completed with their reasons; empty if all have."""
    jobs = schedule.plan.jobs
    rows = [
        (jobs[job_id], result.status, result.reason or "")
        for job_id, result in schedule.done.items()
        if job_id in jobs and result.status != "completed"
    ]
    rows += [(jobs[job_id], "blocked", why) for job_id, why in schedule.blocked.items()]
    if not rows:
        return ""
    lines = [f"\n{len(rows)} of {len(jobs)} jobs have not completed:"]
    by_reason = defaultdict(list)
    for job, status, reason in rows:
        by_reason[status, reason].append(job)
    for (status, reason), alike in by_reason.items():
        lines += [f"  {job.id}  {status:<8} {job.title}" for job in alike]
        lines.append(textwrap.indent(printable_lines(reason), _INDENT))
        logs = [schedule.folder(job) / LOG for job in alike]
        lines += [f"{_INDENT}Log: {log}" for log in logs if log.exists()]
    return "\n".join(lines)


def first_line(reason: str | None) -> str:
    """Return the first line of a reason, which may quote others."""
    line = (reason or "").partition("\n")[0]
    return printable(line, _LONGEST)


def listed(counts: Counter[str]) -> str:
    """Write counts as ``3 new, 1 blocked``."""
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"
