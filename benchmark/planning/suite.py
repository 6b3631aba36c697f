"""A suite file: which checkpoints meet which recipes, at which precisions, with which seeds.

    name: demo
    seeds: [0, 1]
    pretrain_seeds: [0, 1, 2]           # one pretraining a seed: the board compares methods, not files
    precisions: [FP, 4w4a]
    include: [quick.yaml]               # the jobs of other suites, with this suite's settings
    checkpoints:                        # each is made by a pretraining recipe, or is a file
      - {name: SimSiam, pretrain: ../pretrain/digits_simsiam.yaml}
      - {name: mine, path: "backbone_{seed}.pth"}                 # {seed}: one file a pretraining
    transfer:                           # every entry meets every checkpoint, with every seed
      - {id: linear, recipe: ../transfer/digits_linear.yaml}
    detection:                          # `detector` starts from the detector of another entry
      - {id: fp, recipe: ../detection/digit_scenes_retinanet_fp.yaml, checkpoints: [SimSiam]}
      - {id: lsq, recipe: ../detection/digit_scenes_retinanet_lsq_4w4a.yaml, detector: fp}
      - recipe: ../detection/digit_scenes_retinanet_fp.yaml       # meets no checkpoint
        overrides: {random_backbone: true, architecture: resnet18}
    deploy:                             # what another entry made as integer graphs, measured
      - {recipe: ../deploy/openvino.yaml, transfer: linear, precisions: [FP, 8w8a]}
      - {recipe: ../deploy/openvino.yaml, detection: lsq, precisions: [4w4a]}
    exclude:                            # jobs to leave out
      - {checkpoint: mine, precision: 3w3a}
    reported:                           # published numbers to show beside ours
      - {paper: SSQL, table: Table 11}

Paths are relative to the suite file. `sweep.plan` turns a suite into jobs; docs/suites.md says more.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from lowbit.benchmark.planning.exclusions import Exclusion
from lowbit.benchmark.published.selection import published_as
from lowbit.benchmark.recipes.errors import RecipeError, explain
from lowbit.benchmark.recipes.yaml_files import get_stage, load_yaml, parse_overrides, set_key
from lowbit.common.input_files.file_names import checked_path, expanded
from lowbit.common.input_files.strict_model import StrictModel
from lowbit.common.suggest import did_you_mean

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
FileName = Annotated[str, AfterValidator(checked_path)]
_STAGE_OF = {
    "checkpoints": "pretrain",
    "transfer": "transfer",
    "detection": "detection",
    "deploy": "deploy",
}
_CHECKPOINT_WORDS = ("checkpoint", "name", "architecture")
_SEED = "{seed}"  # in a file's name, where the pretraining seed stands


class _Entry(StrictModel):
    overrides: dict[str, Any] = Field({}, description="recipe keys, dotted, and their values")
    published: dict[str, Any] | None = Field(
        None, description="columns and values of the published numbers that are to be reproduced"
    )


class Checkpoint(_Entry):
    """A backbone and its name on the board."""

    name: str = Field(min_length=1, description="its name on the board")
    pretrain: FileName | None = Field(None, description="recipe that makes it")
    architectures: dict[str, str] | None = Field(
        None,
        min_length=1,
        description="one checkpoint for each: the network's name in a paper, which is added to the "
        "name, and its name here",
    )
    path: FileName | None = Field(
        None,
        description="its file, relative to the suite's folder; `{seed}` in it stands for each "
        "pretraining seed",
    )
    pretrain_seeds: Seeds | None = Field(None, description="null: the suite's")
    url: str | None = Field(None, description="where to get that file")
    architecture: str | None = Field(
        None, description="network of a file that does not name it; else null"
    )

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
        if self.path is not None and self.architectures is not None:
            raise ValueError(
                f"checkpoint {self.name!r} is a file: it is of one architecture; write `architecture`"
            )
        if self.path is None and self.url is not None:
            raise ValueError(
                f"checkpoint {self.name!r} is pretrained: `url` says where to get a file; remove it"
            )
        if self.pretrain_seeds is not None and self.path is not None and _SEED not in self.path:
            raise ValueError(
                f"checkpoint {self.name!r} is one file: with `pretrain_seeds`, write {_SEED} where "
                "its files' names differ"
            )
        return self

    def each(self) -> "tuple[Checkpoint, ...]":
        """Return its checkpoints: itself, or one per architecture."""
        if self.architectures is None:
            return (self,)
        return tuple(
            Checkpoint(
                name=f"{self.name} {label}",
                pretrain=self.pretrain,
                pretrain_seeds=self.pretrain_seeds,
                overrides={**self.overrides, "architecture": architecture},
                published=self.published
                and {"architecture": published_as(label), **self.published},
            )
            for label, architecture in self.architectures.items()
        )


@dataclass(frozen=True)
class Pretraining:
    """One backbone of a suite: a checkpoint entry at one pretraining seed.

    Attributes:
        name: on the board; with the seed, if the entry has several.
        method: the entry's name, which its pretrainings share.
        seed: the pretraining seed; None: the recipe's, or not known of a file.
        checkpoint: the entry.
    """

    name: str
    method: str
    seed: int | None
    checkpoint: Checkpoint


class _Scored(_Entry):
    recipe: FileName = Field(
        description="recipe file; for detection also a Detectron2 configuration"
    )
    checkpoints: Names | None = Field(None, description="names of its checkpoints; null: all")
    seeds: Seeds | None = Field(None, description="null: the suite's")


class Transfer(_Scored):
    """A classification recipe to run on the checkpoints."""

    id: str | None = Field(None, description="a name other entries' `start` may use")
    start: str | None = Field(
        None, description="id of the entry whose trained network it starts from, of one precision"
    )
    precisions: Names | None = Field(None, description="null: the suite's")


class Detection(_Scored):
    """A detection recipe to run on the checkpoints."""

    id: str | None = Field(None, description="a name other entries' `detector` may use")
    detector: str | None = Field(None, description="id of the entry whose detector it starts from")


class Deploy(_Scored):
    """What another entry makes, to run as integer graphs on this machine."""

    transfer: str | None = Field(
        None, description="id of the transfer entry whose networks are run"
    )
    detection: str | None = Field(
        None, description="or of the detection entry whose detector is run"
    )
    seeds: Seeds | None = Field(None, description="null: that entry's")
    precisions: Names | None = Field(None, description="null: the recipe's, else that entry's")

    @model_validator(mode="after")
    def _one_entry(self) -> "Deploy":
        if (self.transfer is None) == (self.detection is None):
            raise ValueError(
                f"the deploy entry of {self.recipe} needs either `transfer` or `detection`: the id of the "
                "entry whose networks it runs"
            )
        return self

    @property
    def source(self) -> tuple[str, str]:
        """The stage and the id of the entry whose networks are run."""
        return ("transfer", self.transfer) if self.transfer else ("detection", self.detection)


class Suite(StrictModel):
    """A suite, as run by `lowbit-bench run`."""

    name: str = Field(min_length=1, description="the suite's name in logs")
    include: tuple[FileName, ...] = Field((), description="suites whose jobs are included")
    seeds: Seeds = Field((0,), description="one job a seed")
    pretrain_seeds: Seeds | None = Field(
        None,
        description="one pretraining a seed of every checkpoint with a recipe; null: the recipe's seed",
    )
    precisions: Names | None = Field(
        None, description="precisions of transfer jobs; null: each recipe's"
    )
    checkpoints: tuple[Checkpoint, ...] = Field(
        (),
        min_length=1,
        description="backbones to score; checkpoint=FILE on the command line adds one",
    )
    transfer: tuple[Transfer, ...] = Field((), description="classification recipes")
    detection: tuple[Detection, ...] = Field((), description="detection recipes")
    deploy: tuple[Deploy, ...] = Field((), description="deploy recipes")
    exclude: tuple[Exclusion, ...] = Field((), description="jobs to leave out of the product")
    reported: tuple[dict[str, Any], ...] = Field((), description="published numbers to show")

    @model_validator(mode="after")
    def _names_refer(self) -> "Suite":
        names = [name for c in self.checkpoints for name in self._names(c)]
        _refuse_repeats("checkpoint", names)
        for entry in (*self.transfer, *self.detection, *self.deploy):
            for name in entry.checkpoints or ():
                _refer("checkpoint", name, names)
        _check_chain("transfer id", [(e.id, e.start) for e in self.transfer])
        _check_chain("detection id", [(e.id, e.detector) for e in self.detection])
        for entry in self.deploy:
            stage, source = entry.source
            ids = [e.id for e in getattr(self, stage) if e.id is not None]
            _refer(f"{stage} id", source, ids)
        return self

    def named(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the backbones named by an entry's `checkpoints`: of a method's name, all."""
        return tuple(
            p.name
            for group in self.checkpoints
            for p in self.pretrainings(group)
            if {group.name, p.method, p.name} & {*names}
        )

    def pretrainings(self, group: Checkpoint) -> Iterator[Pretraining]:
        """Yield the backbones of an entry: one per architecture and pretraining seed."""
        for each in group.each():
            seeds = each.pretrain_seeds or self.pretrain_seeds
            if seeds is None or (each.path is not None and _SEED not in each.path):
                yield Pretraining(each.name, each.name, None, each)
                continue
            for seed in seeds:
                if each.path is None:
                    changed = {"overrides": {**each.overrides, "seed": seed}}
                else:
                    changed = {"path": each.path.replace(_SEED, str(seed))}
                name = each.name if len(seeds) == 1 else f"{each.name} seed {seed}"
                yield Pretraining(name, each.name, seed, each.model_copy(update=changed))

    def _names(self, group: Checkpoint) -> list[str]:
        found = (name for p in self.pretrainings(group) for name in (p.method, p.name))
        return [*dict.fromkeys((group.name, *found))]


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
            _disown(mapping, key)
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
            path = expanded(str(value))
            added.append({"name": path.stem, **early, "path": str(Path.cwd() / path)})
            early = {}
        elif key in _CHECKPOINT_WORDS:
            (added[-1] if added else early)[key] = value
    return added


def _disown(mapping: dict[str, Any], key: str) -> None:
    """Drop an entry's published numbers if the command line changes its experiment."""
    section, *rest = key.split(".")
    entries = mapping.get(section)
    if section not in _STAGE_OF or len(rest) < 2 or not isinstance(entries, list):
        return
    index, field, *inner = rest
    changed = inner[0] if field == "overrides" and inner else field
    if changed not in {"published", "seeds", *get_stage(_STAGE_OF[section]).Recipe.cosmetic}:
        entries[int(index)].pop("published", None)


def _check_chain(what: str, entries: Sequence[tuple[str | None, str | None]]) -> None:
    """Refuse duplicate ids, and in (id, source) pairs unknown or circular sources."""
    ids = [entry for entry, _ in entries if entry is not None]
    _refuse_repeats(what, ids)
    sources = dict(entries)
    for entry, source in entries:
        seen = {entry}
        while source is not None:
            _refer(what, source, ids)
            if source in seen:
                raise ValueError(f"the {what} {source!r} starts from itself; name another entry")
            seen.add(source)
            source = sources[source]


def _refuse_repeats(what: str, names: list[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"the {what} {name!r} is given twice; give each a name of its own")


def _refer(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise ValueError(
            f"there is no {what} {name!r}.{did_you_mean(name, known)} "
            f"There is: {', '.join(known) or 'none'}"
        )
