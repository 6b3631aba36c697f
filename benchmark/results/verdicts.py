"""Verdicts on submitted results: verified from predictions, or self-reported.

    runs/submissions/<name>/verdict.json             written when a bundle was added
    runs/submissions/<name>/<job id>/result.json     as it came, beside the files it is scored from

A job without a verdict is not read.
"""

import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lowbit.common.input_files.regular_file import read_regular
from lowbit.common.text import printable

VERDICT = "verdict.json"
SUBMISSIONS = "submissions"
SCHEMA_VERSION = 1
_MOST_BYTES = 64 << 20  # 50,000 jobs have a tenth

_logger = logging.getLogger(__name__)
_Schema = ConfigDict(extra="forbid", frozen=True)


class JobVerdict(BaseModel):
    """The verdict on one job."""

    model_config = _Schema

    source: Literal["verified", "self-reported"] = Field(
        description="Whether its numbers follow from its predictions, or are only reported by the sender."
    )
    reason: str = Field(description="Why.")


class Verdict(BaseModel):
    """The outcome of checking a bundle."""

    model_config = _Schema

    schema_version: Literal[1] = Field(description="Version of this layout.")
    bundle_sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] = Field(
        description="SHA-256 of the checked bundle."
    )
    jobs: dict[str, JobVerdict] = Field(description="The verdict on each job, by id.")


def read_verdict(path: Path) -> Verdict:
    """Read a verdict file.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is none.
    """
    return Verdict.model_validate_json(read_regular(path, limit=_MOST_BYTES))


def read_verdicts(runs_dir: Path) -> dict[str, JobVerdict]:
    """Return the verdicts of a runs folder by the job's folder, relative to it.

    An invalid verdict is reported, and its submission is left out.
    """
    verdicts = {}
    for path in sorted(Path(runs_dir).glob(f"{SUBMISSIONS}/*/{VERDICT}")):
        try:
            jobs = read_verdict(path).jobs
        except (OSError, ValueError) as error:
            _logger.warning(
                "%s cannot be read (%s); the submission is not shown. Add its bundle again.",
                path,
                printable(str(error).partition("\n")[0]),
            )
            continue
        name = path.parent.name
        verdicts |= {f"{SUBMISSIONS}/{name}/{job_id}": found for job_id, found in jobs.items()}
    return verdicts
