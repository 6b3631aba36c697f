"""Name checkpoints and methods so that what differs never shares a name.

A *method* is what the pretrainings of one recipe share that differ in the seed alone. A name that has
meant several recipes, of pretraining or of scoring, is parted by what they differ in: `SSQL [epochs 40]`;
where that is not known, as of a user's files, by the origin: `mine@1a2b3c4d`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lowbit.benchmark.results.comparability import BOARD, MEASURED, SUBJECT
from lowbit.benchmark.results.recipe_variants import variants
from lowbit.benchmark.results.record_cache import FOLDER
from lowbit.benchmark.results.records import ORIGIN
from lowbit.benchmark.results.result_file import PRETRAINING

_PRETRAIN = "pretrain"
_MADE_BY = "made_by"  # version of the pretraining's protocol; "" where it is not known


def named_apart(jobs: pd.DataFrame, runs_dir: Path) -> pd.DataFrame:
    """Return jobs with the names of their checkpoints and methods (PRETRAINING) parted.

    Args:
        jobs: a row a job, with its facts, ORIGIN, RECIPE and FOLDER.
        runs_dir: where the result files are.
    """
    label, made_by = _pretrainings(jobs, runs_dir)
    jobs = jobs.assign(
        checkpoint=jobs["checkpoint"] + label,
        **{PRETRAINING: jobs[PRETRAINING] + label, _MADE_BY: made_by},
    )
    unknown = jobs[_MADE_BY] == ""
    apart = _ambiguous(jobs, "checkpoint", ORIGIN)
    methods_apart = _ambiguous(jobs, PRETRAINING, _MADE_BY, among=~unknown)
    by_origin = "@" + jobs[ORIGIN].str[:8]
    jobs["checkpoint"] += by_origin.where(apart, "")
    jobs[PRETRAINING] += ("@" + jobs[_MADE_BY]).where(methods_apart & ~unknown, "")
    jobs[PRETRAINING] += by_origin.where(apart & unknown, "")
    # A method has one name on a board, whichever of its pretrainings were scored by which recipe.
    by_method = jobs.assign(checkpoint=jobs[PRETRAINING])
    variant = variants(by_method, runs_dir, folder=FOLDER, within=(*SUBJECT, *BOARD))
    suffix = (" [" + variant + "]").where(variant != "", "")
    jobs["checkpoint"] += suffix
    jobs[PRETRAINING] += suffix
    return jobs.drop(columns=_MADE_BY)


def _pretrainings(jobs: pd.DataFrame, runs_dir: Path) -> tuple[pd.Series, pd.Series]:
    """Return, by job, what tells its pretraining's recipe from others of its name, and _MADE_BY."""
    made = jobs[(jobs["task"] == _PRETRAIN) & (jobs["status"] == "completed")]
    made = made.drop_duplicates("job_id")
    variant = variants(
        made, runs_dir, folder=FOLDER, within=(PRETRAINING, "method", "architecture")
    )
    variant = (" [" + variant + "]").where(variant != "", "")
    version = "v" + made["protocol_version"].astype(str)
    of_job = made["job_id"]

    def of_origin(found: pd.Series) -> pd.Series:
        known = dict(zip(of_job, found, strict=True))
        codes, origins = pd.factorize(jobs[ORIGIN])
        texts = np.array([known.get(origin, "") for origin in origins], dtype=object)
        return pd.Series(texts[codes], jobs.index, dtype=object)

    return of_origin(variant), of_origin(version)


def _ambiguous(
    jobs: pd.DataFrame, name: str, origin: str, among: pd.Series | None = None
) -> pd.Series:
    """Tell the jobs whose name stands for several origins; one sent, also beside those measured here."""
    sent = jobs["source"] != MEASURED
    counted = jobs["status"] == "completed"
    counted = counted if among is None else counted & among
    apart = jobs[name].isin(_shared(jobs[counted & ~sent], name, origin))
    return apart | (sent & jobs[name].isin(_shared(jobs[counted], name, origin)))


def _shared(jobs: pd.DataFrame, name: str, origin: str) -> pd.Index:
    """Return the names that several origins share."""
    origins = jobs.groupby(name)[origin].nunique()
    return origins.index[origins > 1]
