"""A job and its id, a content hash: equal work has equal ids, wherever and whenever it runs.

The id covers everything that determines the numbers: stage, protocol version, the recipe without its cosmetic
fields, the facts of `identity` (split hash, policy fingerprint, engine, ...) and each input's
content: a file by its SHA-256, another job's output by that job's id. Names, paths, devices and
folders are excluded.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lowbit.benchmark.recipes.stages import DERIVED_FACTS
from lowbit.benchmark.recipes.yaml_files import get_stage
from lowbit.common.file_hash import file_sha256
from lowbit.common.text import printable

CHECKPOINT = "checkpoint"  # the artifact that is a backbone, or a detector
NETWORKS = "scored networks"  # the artifact of transfer jobs that deploy jobs read
CALIBRATED = "calibrated detector"  # that of a detector which is quantized without training
ID_LENGTH = 12  # hex characters of SHA-256: 48 bits, one clash expected in 10^7 jobs


@dataclass(frozen=True)
class File:
    """An input that is a user's file; `sha256` is None if it does not exist.

    `url` is where to get a missing one.
    """

    path: Path
    sha256: str | None
    url: str | None = field(default=None, compare=False)

    @classmethod
    def at(cls, path: Path | str, *, url: str | None = None) -> "File":
        """Read the hash of the file at `path`."""
        path = Path(path).resolve()
        return cls(path, file_sha256(path) if path.is_file() else None, url)

    @property
    def content(self) -> str:
        """The part of the job id. A missing file has no content, so its path is used."""
        return self.sha256 or f"missing:{self.path}"


@dataclass(frozen=True)
class Output:
    """An input that is an artifact of another job."""

    job_id: str
    artifact: str = CHECKPOINT

    @property
    def content(self) -> str:
        """The part of the job id."""
        made = f"job:{self.job_id}"
        return made if self.artifact == CHECKPOINT else f"{made}/{self.artifact}"


@dataclass(frozen=True)
class Label:
    """The board's labels of the checkpoint a job makes or scores; not part of the id.

    `pretraining` is the name that checkpoints share which differ in `pretrain_seed` alone.
    """

    checkpoint: str
    method: str = "-"
    architecture: str = "-"
    pretraining: str | None = None
    pretrain_seed: int | None = None


@dataclass(frozen=True)
class Job:
    """One run of one stage.

    Attributes:
        stage: one of `stages.STAGES`.
        version: the stage's protocol version.
        recipe: the validated recipe as plain JSON, without the fields in `inputs`.
        cosmetic: the recipe's fields that do not change results.
        inputs: the source of each recipe field that names a file.
        identity: the facts that determine which results are comparable.
        label: the board's labels of its checkpoint.
        problem: why it cannot run, if known before it starts.
        missing: the missing data and how to get it; the job is skipped, not failed.
        published: the published numbers it is to reproduce, see
            `lowbit.benchmark.published.reproduction_targets`; None: none is known.
    """

    stage: str
    version: int
    recipe: Mapping[str, Any]
    cosmetic: frozenset[str]
    inputs: Mapping[str, File | Output]
    identity: Mapping[str, Any]
    label: Label = field(compare=False)
    problem: str | None = field(default=None, compare=False)
    missing: str | None = field(default=None, compare=False)
    published: Mapping[str, Any] | None = field(default=None, compare=False)

    @classmethod
    def plan(
        cls, stage: str, recipe: BaseModel, *, inputs: Mapping[str, File | Output], label: Label
    ) -> "Job":
        """Make the job of a validated recipe; one that cannot run is planned with its `problem`."""
        package = get_stage(stage)
        absent = {
            name: source
            for name, source in inputs.items()
            if isinstance(source, File) and source.sha256 is None
        }
        problems = [
            f"There is no {name} file {source.path}; the job was not started. Correct the path."
            for name, source in absent.items()
            if source.url is None
        ]
        missing = package.missing_data(recipe)
        missing = missing or next((_how_to_get(s) for s in absent.values() if s.url), None)
        try:
            identity = package.identity(recipe)
        except (ValueError, OSError, ImportError) as error:
            identity = {}
            if missing is None:
                problems.append(f"{type(error).__name__}: {error}")
        return cls(
            stage=stage,
            version=package.VERSION,
            recipe=recipe.model_dump(mode="json", exclude=set(inputs)),
            cosmetic=frozenset(recipe.cosmetic),
            inputs=dict(inputs),
            identity=identity,
            label=label,
            problem=" ".join(problems) or None,
            missing=missing,
        )

    @cached_property
    def id(self) -> str:
        """The name of the job and of its folder."""
        return _short_hash(
            {
                "stage": self.stage,
                "version": self.version,
                "recipe": self._decisive(),
                "identity": {k: v for k, v in self.identity.items() if k not in DERIVED_FACTS},
                "inputs": {name: source.content for name, source in self.inputs.items()},
            }
        )

    @cached_property
    def question(self) -> str:
        """Hash of the recipe and the checkpoint name, independent of the file behind that name."""
        asked = {
            "stage": self.stage,
            "version": self.version,
            "recipe": self._decisive(),
            "checkpoint": self.label.checkpoint,
        }
        if "config_sha256" in self.identity:  # a recipe with a Detectron2 configuration
            asked["config"] = self.identity["config_sha256"]
        return _short_hash(asked)

    @property
    def facts(self) -> dict[str, Any]:
        """The recipe and the identity together; the identity takes precedence."""
        return {**self.recipe, **self.identity}

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the jobs whose outputs this one reads."""
        return tuple(s.job_id for s in self.inputs.values() if isinstance(s, Output))

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions of its measurements."""
        facts = self.facts
        return tuple(facts.get("precisions") or [facts.get("precision") or "FP"])

    @property
    def title(self) -> str:
        """A one-line description of the job."""
        facts = self.facts
        words = [self.label.checkpoint, facts.get("dataset"), facts.get("protocol")]
        if facts.get("method") not in (None, "-", self.label.checkpoint, *words):
            words.append(facts["method"])
        words.append("/".join(self.precisions) if self.stage != "pretrain" else None)
        words.append(f"seed {facts['seed']}" if "seed" in facts else None)
        return f"{self.stage} " + " ".join(printable(str(w)) for w in words if w not in (None, "-"))

    def _decisive(self) -> dict[str, Any]:
        return {k: v for k, v in self.recipe.items() if k not in self.cosmetic}


def _how_to_get(file: File) -> str:
    return (
        f"There is no {file.path}; nothing was run that starts from it. Get it: "
        f"`curl -L --create-dirs -o {file.path} {file.url}`."
    )


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN.

    Example:
        >>> canonical_json({"b": 1, "a": [0.001, None]})
        '{"a":[0.001,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _short_hash(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:ID_LENGTH]
