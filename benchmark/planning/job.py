"""One job, and the hash that is its name: equal work has equal ids, wherever and whenever it runs.

Into the id go what decides the numbers: stage, protocol version, the recipe without its cosmetic
fields, the facts of `identity` (split hash, policy fingerprint, engine, ...) and each input's
content: a file by its SHA-256, another job's output by that job's id. Names, paths, devices and
folders stay out.
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

CHECKPOINT = "checkpoint"  # the artifact that is a backbone, or a detector
ID_LENGTH = 12  # hex characters of SHA-256: 48 bits, one clash expected in 10^7 jobs


@dataclass(frozen=True)
class File:
    """An input that is a file of the user's; `sha256` is None when there is no such file.

    `url` says where to get one that is not there.
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
        """What enters a job id. A missing file has no content, so its path stands in."""
        return self.sha256 or f"missing:{self.path}"


@dataclass(frozen=True)
class Output:
    """An input that another job makes: one of its artifacts."""

    job_id: str
    artifact: str = CHECKPOINT

    @property
    def content(self) -> str:
        """What enters a job id."""
        made = f"job:{self.job_id}"
        return made if self.artifact == CHECKPOINT else f"{made}/{self.artifact}"


@dataclass(frozen=True)
class Label:
    """What the board calls the checkpoint a job makes or scores; nothing here enters the id."""

    checkpoint: str
    method: str = "-"
    architecture: str = "-"


@dataclass(frozen=True)
class Job:
    """One run of one stage.

    Attributes:
        stage: one of `stages.STAGES`.
        version: the stage's protocol version.
        recipe: the validated recipe as plain JSON, without the fields in `inputs`.
        cosmetic: the recipe's fields that do not change results.
        inputs: for each recipe field that names a file, where it comes from.
        identity: the facts that make its rows comparable with others.
        label: what the board calls its checkpoint.
        problem: why it cannot run, when that is known before it starts.
        missing: the data that is not there and how to get it; the job is skipped, not failed.
        published: the published numbers it is to reproduce, see `lowbit.benchmark.published.reproduction_targets`; None: none is known.
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
        """What was asked of which checkpoint name, whatever file that name meant at the time."""
        asked = {
            "stage": self.stage,
            "version": self.version,
            "recipe": self._decisive(),
            "checkpoint": self.label.checkpoint,
        }
        if "config_sha256" in self.identity:  # of a recipe that is another framework's file
            asked["config"] = self.identity["config_sha256"]
        return _short_hash(asked)

    @property
    def facts(self) -> dict[str, Any]:
        """The recipe and the identity together; where both name a fact, the identity's counts."""
        return {**self.recipe, **self.identity}

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the jobs whose outputs this one reads."""
        return tuple(s.job_id for s in self.inputs.values() if isinstance(s, Output))

    @property
    def precisions(self) -> tuple[str, ...]:
        """The bit-widths its measurements will be of."""
        facts = self.facts
        return tuple(facts.get("precisions") or [facts.get("precision") or "FP"])

    @property
    def title(self) -> str:
        """One line that tells a reader which job this is."""
        facts = self.facts
        words = [self.label.checkpoint, facts.get("dataset"), facts.get("protocol")]
        if facts.get("method") not in (None, "-", self.label.checkpoint, *words):
            words.append(facts["method"])
        words.append("/".join(self.precisions) if self.stage != "pretrain" else None)
        words.append(f"seed {facts['seed']}" if "seed" in facts else None)
        return f"{self.stage} " + " ".join(str(w) for w in words if w not in (None, "-"))

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
