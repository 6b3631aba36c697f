"""A suite file: which checkpoints meet which recipes, at which precisions, with which seeds.

    name: demo
    seeds: [0, 1]
    precisions: [FP, 4w4a]
    checkpoints:                        # each is made by a pretraining recipe, or is a file
      - {name: SimSiam, pretrain: ../pretrain/digits_simsiam.yaml}
      - {name: mine, path: backbone.pth}
    transfer:                           # every entry meets every checkpoint, with every seed
      - {recipe: ../transfer/digits_linear.yaml}
    detection:                          # `detector` starts from the detector of another entry
      - {id: fp, recipe: ../detection/digit_scenes_retinanet_fp.yaml, checkpoints: [SimSiam]}
      - {id: lsq, recipe: ../detection/digit_scenes_retinanet_lsq_4w4a.yaml, detector: fp}
      - recipe: ../detection/digit_scenes_retinanet_fp.yaml       # meets no checkpoint
        overrides: {random_backbone: true, architecture: resnet18}
    reported:                           # published numbers to show beside ours
      - {paper: SSQL, table: Table 11}

Paths are relative to the suite file. `sweep.plan` turns a suite into jobs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmark.messages import RecipeError, did_you_mean, explain
from benchmark.recipe import load_yaml, parse_overrides, set_key

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
_CHECKPOINT_WORDS = ("checkpoint", "name", "architecture")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    overrides: dict[str, Any] = Field({}, description="recipe keys, dotted, and their values")


class Checkpoint(_Entry):
    """A backbone under the name the board will show."""

    name: str = Field(min_length=1, description="what the board calls it")
    pretrain: str | None = Field(None, description="recipe that makes it")
    path: str | None = Field(None, description="file that holds it")
    architecture: str | None = Field(None, description="of a file that does not say; else null")

    @model_validator(mode="after")
    def _one_source(self) -> "Checkpoint":
        if (self.pretrain is None) == (self.path is None):
            raise ValueError(
                f"checkpoint {self.name!r} needs either `pretrain`, a recipe that makes it, or "
                "`path`, a file that holds it"
            )
        if self.path is not None and self.overrides:
            raise ValueError(f"checkpoint {self.name!r} is a file: it has no recipe to override")
        if self.pretrain is not None and self.architecture is not None:
            raise ValueError(
                f"checkpoint {self.name!r} is pretrained: its recipe names the architecture; "
                "write `overrides: {architecture: ...}` to change it"
            )
        return self


class _Scored(_Entry):
    recipe: str = Field(description="recipe file")
    checkpoints: Names | None = Field(None, description="names it is limited to; null: all")
    seeds: Seeds | None = Field(None, description="null: the suite's")


class Transfer(_Scored):
    """A classification recipe that meets the checkpoints."""

    precisions: Names | None = Field(None, description="null: the suite's")


class Detection(_Scored):
    """A detection recipe that meets the checkpoints."""

    id: str | None = Field(None, description="a name other entries' `detector` may use")
    detector: str | None = Field(None, description="id of the entry whose detector it starts from")


class Suite(BaseModel):
    """Everything `tools/run_all.py` runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="what a log calls the suite")
    seeds: Seeds = Field((0,), description="one job a seed")
    precisions: Names | None = Field(None, description="of transfer; null: each recipe's")
    checkpoints: tuple[Checkpoint, ...] = Field(
        (), min_length=1, description="what is scored; checkpoint=FILE on the command line adds one"
    )
    transfer: tuple[Transfer, ...] = Field((), description="classification recipes")
    detection: tuple[Detection, ...] = Field((), description="detection recipes")
    reported: tuple[dict[str, Any], ...] = Field((), description="published numbers to show")

    @model_validator(mode="after")
    def _names_refer(self) -> "Suite":
        names = [c.name for c in self.checkpoints]
        _refuse_repeats("checkpoint", names)
        for entry in (*self.transfer, *self.detection):
            for name in entry.checkpoints or ():
                _refer("checkpoint", name, names)
        ids = [e.id for e in self.detection if e.id is not None]
        _refuse_repeats("detection id", ids)
        by_id = {e.id: e for e in self.detection}
        for entry in self.detection:
            seen, source = {entry.id}, entry.detector
            while source is not None:
                _refer("detection id", source, ids)
                if source in seen:
                    raise ValueError(f"detector {source!r} starts from itself; name another entry")
                seen.add(source)
                source = by_id[source].detector
        return self


def load_suite(path: Path | str, overrides: Sequence[str] = ()) -> Suite:
    """Read and check a suite file.

    Args:
        path: the suite file.
        overrides: command-line words. ``checkpoint=FILE [name=NAME] [architecture=NAME]`` adds a
            checkpoint (relative to the working directory); any other key, dotted, sets that key
            of the suite, e.g. ``seeds [0,1,2]`` or ``transfer.0.overrides.epochs 3``.

    Raises:
        RecipeError: the file is missing, not YAML or not a suite.
    """
    mapping = load_yaml(path)
    pairs = parse_overrides(overrides)
    added = _added_checkpoints(pairs)
    for key, value in pairs:
        if not (added and key in _CHECKPOINT_WORDS):
            set_key(mapping, key, value)
    if added:
        listed = mapping.get("checkpoints")
        mapping["checkpoints"] = [*(listed if isinstance(listed, list) else []), *added]
    try:
        return Suite.model_validate(mapping)
    except ValidationError as error:
        raise RecipeError(explain(error, Suite, f"{path} (a suite)")) from error


def _added_checkpoints(pairs: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Collect the checkpoints of the command line; words before the first belong to it."""
    added: list[dict[str, Any]] = []
    early: dict[str, Any] = {}
    for key, value in pairs:
        if key == "checkpoint":
            path = Path(str(value)).expanduser()
            added.append({"name": path.stem, **early, "path": str(Path.cwd() / path)})
            early = {}
        elif key in _CHECKPOINT_WORDS:
            (added[-1] if added else early)[key] = value
    return added


def _refuse_repeats(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the {what} {name!r} is given twice; give each a name of its own")


def _refer(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise ValueError(
            f"there is no {what} {name!r}.{did_you_mean(name, known)} "
            f"There is: {', '.join(known) or 'none'}"
        )
