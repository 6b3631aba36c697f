"""The state of a suite as text for a terminal."""

from collections import defaultdict

from lowbit.benchmark.monitoring.job_messages import describe_result, first_line
from lowbit.benchmark.monitoring.status import STATES, SuiteStatus
from lowbit.common.text import counted, duration, printable

_LAST = 5  # results shown
_SHOWN = 8  # jobs shown of a state


def describe_status(status: SuiteStatus) -> str:
    """Describe a suite to a reader: counts, what runs, why jobs failed, the last results."""
    total = len(status.jobs)
    counts = ", ".join(f"{len(status.of(s)):,} {s}" for s in STATES if status.of(s))
    lines = [f"{status.name}: {counted(total, 'job')}: {counts}"]
    if (left := status.seconds_left) is not None:
        lines.append(f"About {duration(left)} left at the pace so far.")
    if running := status.of("running"):
        lines.append("Running:")
        for job in running[:_SHOWN]:
            since = "" if job.minutes is None else f", for {duration(60 * job.minutes)}"
            lines.append(f"  {job.job.id}  {job.job.title} on {printable(job.host)}{since}")
        lines += _more(len(running))
    by_reason = defaultdict(list)
    for state in ("failed", "skipped"):
        for job in status.of(state):
            by_reason[state, first_line(job.result.reason)].append(job)
    for (state, reason), alike in by_reason.items():
        lines.append(f"{state.capitalize()}: {reason}")
        lines += [f"  {job.job.id}  {job.job.title}" for job in alike[:_SHOWN]]
        lines += _more(len(alike))
    if last := [job for job in status.last if job.state == "completed"][:_LAST]:
        lines.append("Last results:")
        lines += [f"  {job.job.id}  {describe_result(job.job.title, job.result)}" for job in last]
    return "\n".join(lines)


def _more(count: int) -> list[str]:
    return [f"  ... and {count - _SHOWN} more"] if count > _SHOWN else []
