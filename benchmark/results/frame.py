"""The results frame: one row per measurement of every result in a runs folder."""

from collections.abc import Container, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lowbit.benchmark.results.comparability import BOARD, MEASURED, OWN, SUBJECT
from lowbit.benchmark.results.recipe_variants import variants
from lowbit.benchmark.results.records.make_record import (
    JOB_FLOATS,
    ORIGIN,
    QUESTION,
    ROW_FLOATS,
    ROWS,
)
from lowbit.benchmark.results.records.record_cache import load_records
from lowbit.benchmark.results.records.record_columns import FOLDER
from lowbit.benchmark.results.result_file import (
    ADAPTIVE,
    BIT_OPERATIONS,
    COLUMNS,
    DEVICE,
    HIGH,
    INTERVAL,
    LOW,
    MACHINE,
    POLICY_ON_BOARD,
    PRETRAIN_SEED,
    PRETRAINING,
    ROUNDING,
    SECONDS,
    STDERR,
    TRAINING,
    WARNING,
    WEIGHT_BYTES,
    ZERO_SHOT,
)
from lowbit.benchmark.results.verdicts import SUBMISSIONS, JobVerdict, read_verdicts

# Those of published numbers too, then those of measured ones alone.
MEASURED_COLUMNS = (
    *COLUMNS, TRAINING, STDERR, LOW, HIGH, INTERVAL, WARNING, WEIGHT_BYTES, BIT_OPERATIONS,
    ROUNDING, ZERO_SHOT, POLICY_ON_BOARD, PRETRAINING, PRETRAIN_SEED, *ADAPTIVE, *MACHINE,
    SECONDS, DEVICE,
)  # fmt: skip

_PRETRAIN = "pretrain"
_MADE_BY = "made_by"  # version of the pretraining's protocol; "" where it is not known


def load_frame(runs_dir: Path) -> pd.DataFrame:
    """Return one row per measurement of every result under `runs_dir`.

    A failed or skipped job gives a row without a value for each precision it was planned at, so
    that its reason can be shown in its place; once a completed job answers the same question (the
    path was corrected, say) the failure is left out. Where one checkpoint name has meant several
    files or pretraining runs over time, or results of one row come from recipes that differ, each is
    shown under a name of its own, ``name [lr 0.3]`` or ``name@hash`` (`_named_apart`).

    Submitted results come after those measured here, verified ones first, with the outcome of the check
    as their reason. Jobs that were measured here, or have no numbers, are not read from submissions;
    a checkpoint name that is already used here for another checkpoint becomes ``name@hash``.
    """
    table = load_records(runs_dir)
    jobs = _shown(table.drop_columns([ROWS]).to_pandas(), read_verdicts(runs_dir))
    jobs = _named_apart(jobs, Path(runs_dir))
    numbers = (
        table[ROWS].combine_chunks().take(pa.array(jobs.index, pa.int64()))
    )  # a list for each job
    of_job = pc.list_parent_indices(numbers).to_numpy()
    rows = pa.Table.from_struct_array(numbers.flatten()).to_pandas()
    frame = pd.concat([jobs.iloc[of_job].reset_index(drop=True), rows], axis=1)
    whole = dict.fromkeys(("n", "seed", "image_size", PRETRAIN_SEED), "Int64")
    return frame[list(MEASURED_COLUMNS)].astype(
        whole | dict.fromkeys((*JOB_FLOATS, *ROW_FLOATS), float)
    )


def _shown(jobs: pd.DataFrame, verdicts: Mapping[str, JobVerdict]) -> pd.DataFrame:
    """Return the jobs that are shown, each with its source; their index says which they were."""
    sent = jobs[FOLDER].str.startswith(f"{SUBMISSIONS}/")
    own, others = jobs[~sent].assign(source=MEASURED), jobs[sent]
    copied = (own[FOLDER] != own["job_id"]).sort_values(kind="stable").index  # these come last
    own = own[~own["job_id"].reindex(copied).duplicated().sort_index()]
    completed = own["status"] == "completed"
    done = own[completed]
    answered, measured = set(done[QUESTION].to_numpy()), set(done["job_id"].to_numpy())
    own = own[completed | ~_among(own[QUESTION], answered)]
    others = others[others["status"] == "completed"]
    others = others[_among(others[FOLDER], verdicts)]
    others = others[~_among(others["job_id"], measured)]
    found = [verdicts[folder] for folder in others[FOLDER]]
    sender = others[FOLDER].str.split("/").str[1]
    others = others.assign(
        source=[verdict.source for verdict in found],
        reason=sender + ": " + pd.Series([v.reason for v in found], index=others.index, dtype=str),
    )
    others = others.sort_values("source", key=lambda s: s.map(OWN.index), kind="stable")
    return pd.concat([own, others.drop_duplicates("job_id")])


def _among(values: pd.Series, known: Container[str]) -> pd.Series:
    # isin would turn what is known into another representation first, at 100,000 of them for a second
    within = [
        value in known for value in values.to_numpy()
    ]  # a series would make one text at a time
    return pd.Series(within, index=values.index, dtype=bool)


def _named_apart(jobs: pd.DataFrame, runs_dir: Path) -> pd.DataFrame:
    """Return jobs with the names of their checkpoints and methods parted, so that what differs shares none.

    A *method* (PRETRAINING) is what the pretrainings of one recipe share that differ in the seed alone. A
    name that has meant several recipes, of pretraining or of scoring, is parted by what they differ in:
    `SSQL [epochs 40]`; where that is not known, as of a user's files, by the origin: `mine@1a2b3c4d`.

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
