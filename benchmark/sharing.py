"""What a job computes for others as well: features of the same weights, a full-precision start."""

from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.results.result_file import Result

_DECISIVE = ("dataset", "image_size", "policy_fingerprint", "fp_start")


def shared_by(job: Job | Result) -> tuple[str, ...] | None:
    """Return what jobs with a common part have in common; None: the stage shares nothing.

    The files that hold it are the stage's, under everything they depend on: this is to order jobs and
    to estimate them, and equal only for jobs that may share.
    """
    if job.recipe.get("cache_dir", "") is not None:
        return None
    facts = {**job.recipe, **job.identity}
    if isinstance(job, Job):
        inputs = {name: source.content for name, source in job.inputs.items()}
    else:
        made = {name: record.job_id for name, record in job.inputs.items()}
        inputs = {
            name: f"job:{made[name]}" if made[name] else str(record.sha256)
            for name, record in job.inputs.items()
        }
    read = (f"{name}={content}" for name, content in sorted(inputs.items()))
    return (job.stage, *read, *(str(facts.get(name)) for name in _DECISIVE))
