"""The training curve of quantization-aware training: the rows of its metrics.jsonl.

This module defines the rows. A job writes a file for each precision,

    <job>/parts/<precision>/metrics.jsonl

one row per epoch, counted from 0, recorded at the epoch's end.
"""

import json
import logging
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError, model_validator

from lowbit.quant import Precision
from lowbit.quant.precision import OFF
from lowbit.training.job_state import PARTS
from lowbit.training.metrics_log import METRICS

_logger = logging.getLogger(__name__)


class Transitions(BaseModel):
    """How often discrete weights changed, by layer in the order of `names`.

    Optimizers without a transition-rate schedule have neither target nor lr.
    """

    names: list[str] = Field(min_length=1, description="quantized layers")
    rate: list[float] = Field(description="k^t (Eq. 5), share of weights whose code changed")
    effective_step: list[float] = Field(description="mean |w_q^t - w_q^(t-1)| (Eqs. 6-9)")
    target: float | list[float] | None = Field(None, description="R^t; of each layer for S3")
    running: float | list[float] | None = Field(None, description="K^t (Eq. 10)")
    lr: float | list[float] | None = Field(None, description="U^t (Eq. 11)")

    @model_validator(mode="after")
    def _one_a_layer(self) -> "Transitions":
        for name in ("rate", "effective_step", "target", "running", "lr"):
            self.by_layer(name)
        return self

    def by_layer(self, name: str) -> list[float | None]:
        """Return a field's value for every layer, repeating a shared one.

        Raises:
            ValueError: it has neither one value nor one per layer.
        """
        found = getattr(self, name)
        values = found if isinstance(found, list) else [found]
        if len(values) == 1:
            return values * len(self.names)
        if len(values) != len(self.names):
            raise ValueError(f"{name} has {len(values)} values for {len(self.names)} layers")
        return values


class Latent(BaseModel):
    """Positions of latent weights relative to their quantizer's transition points, by layer."""

    names: list[str] = Field(min_length=1, description="quantized layers")
    histogram: list[list[float]] = Field(description="weights in each bin, by layer")
    edges: list[float] = Field(min_length=2, description="of the bins, in steps of the quantizer")
    mean_distance: list[float] = Field(description="to the nearest transition point, in steps")

    @model_validator(mode="after")
    def _one_a_layer(self) -> "Latent":
        if not len(self.names) == len(self.histogram) == len(self.mean_distance):
            raise ValueError("histogram or mean_distance does not have one entry per layer")
        if {len(counts) for counts in self.histogram} != {len(self.edges) - 1}:
            raise ValueError("a histogram has a different number of bins than edges gives")
        return self


class EpochRow(BaseModel):
    """One epoch; other keys are allowed and ignored."""

    epoch: int = Field(ge=0, description="counted from 0")
    lr: float = Field(description="learning rate of parameters without a transition-rate schedule")
    loss: dict[str, float] = Field(description="mean over the epoch, by split")
    accuracy: dict[str, float] = Field({}, description="top-1 in %, by split")
    transitions: Transitions
    latent: Latent | None = None


def read_parts(job: Path) -> dict[str, list[EpochRow]]:
    """Return the rows of every precision a qat job has trained so far, in the job's order.

    Raises:
        FileNotFoundError: the folder is missing or contains no curve.
        ValueError: a row does not have the format defined here.
    """
    job = Path(job)
    if not job.is_dir():
        raise FileNotFoundError(
            f"there is no folder {job}; nothing was drawn. Name the folder of a qat job: "
            "runs/<job id>, or --output-dir of lowbit-bench transfer."
        )
    paths = [p for p in job.glob(f"{PARTS}/*/{METRICS}") if _precision(p.parent.name)]
    paths.sort(key=lambda path: _precision(path.parent.name), reverse=True)
    parts = {path.parent.name: rows for path in paths if (rows := read_rows(path))}
    if not parts:
        raise FileNotFoundError(
            f"{job} contains no epoch of quantization-aware training ({PARTS}/<precision>/{METRICS}); "
            "nothing was drawn. Name the folder of a job of protocol qat, and wait for its first "
            "epoch."
        )
    return parts


def read_rows(path: Path) -> list[EpochRow]:
    """Return the rows of one curve; a line truncated by a kill is omitted.

    Raises:
        ValueError: a row does not have the format defined here.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(EpochRow.model_validate(json.loads(line)))
        except json.JSONDecodeError as error:
            if number == len(lines):
                _logger.warning("%s: line %d is truncated and was skipped", path, number)
                continue
            raise ValueError(_refusal(path, number, str(error))) from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
            raise ValueError(_refusal(path, number, why)) from error
    return rows


def _refusal(path: Path, number: int, why: str) -> str:
    return (
        f"{path}, line {number}, is not an epoch of quantization-aware training ({why}); nothing "
        "was drawn. Name folders of jobs of protocol qat, of this version."
    )


def _precision(name: str) -> Precision | None:
    """Return a part's precision; None if its name is not one, or its weights are not quantized."""
    try:
        precision = Precision.parse(name)
    except ValueError:
        return None
    return precision if precision.weight_bits < OFF else None
