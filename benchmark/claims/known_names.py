"""Refuse names in claims that nothing here has.

The registries of names import torch, which takes seconds, and claims are read in the time of a keystroke.
So a name in `_OFTEN` is known without them; any other is looked up in its registry, which refuses it or
not. Nothing has to be added here with a new data set, network or pairing.
"""

import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief

_PRECISION = re.compile(r"FP|[1-9]\d?w[1-9]\d?a")
TASKS = ("classification", "detection", "pretrain")
_BASES = ("sgd", "adam", "adamw", "nadam", "adamax", "rmsprop", "adagrad")
OPTIMIZERS = (*_BASES, *(f"{name}t" for name in _BASES), "lars", "larc")
_OFTEN = {
    fact: frozenset(names.split())
    for fact, names in {
        "task": " ".join(TASKS),
        "dataset": "cifar10 cifar100 imagenet flowers102 food101 pets dtd caltech101 digits",
        "architecture": "mobilenetv2",
        "training": "fp",
        "method": "SimSiam SSQL SimCLR BYOL BYOL+SSQL MoCov2 MoCov2+SSQL MoCov3 MoCov3+SSQL "
        "CQ-A CQ-B CQ-C CQ-Quant BYOL+CQ-C untrained",
        "protocol": "linear linear-exact finetune semi qat adaptive",
        "optimizer": " ".join(OPTIMIZERS),
        "policy": "interval interval-binary reactnet tr lsq lsqplus pact ewgs coquant",
        "schedule": "step cosine linear",
        "adaptive.method": "coquant adabits switchable-bn individual any-precision",
        "transition.controller": "eq11 s1 s2 s3",
        "oscillation.method": "dampening freezing",
    }.items()
}
_OF_DETECTRON2 = frozenset(("coco_2017_val", "voc_2007_test"))  # sets of the shipped configurations
_FOLDERS = re.compile(r"(folder|frames|coco|voc):[\w.-]+")  # of a user's images
# Of a policy that a recipe spells out, which may have any option of its quantizers.
_OF_POLICY = re.compile(r"(pretrain\.)?policy\.(base|(weight|activation)\.(kind|options\.\w+))")
_NUMBERS = frozenset(
    ("label_fraction", "transition.lambda_", "transition.final_target", "transition.highest")
    + ("adaptive.bits", "adaptive.teacher_lambda", "pretrain.precision_set")
)


def check_precision(name: str) -> str:
    """Return a precision, unchanged.

    Raises:
        ValueError: it is none.
    """
    if not _PRECISION.fullmatch(name):
        raise ValueError(f"{brief(name)} is not a precision; write FP, or as 4w4a")
    return name


def check_dataset(name: str) -> str:
    """Return the name of an image set or a detection set, unchanged.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in _OFTEN["dataset"] | _OF_DETECTRON2 and not _FOLDERS.fullmatch(name):
        _look_up_dataset(name)
    return name


def check_fact(name: str, value: Any) -> None:
    """Refuse a fact that no result has, or a value that it never has.

    A list stands for any of its values, or is the value itself, as of `adaptive.bits`.

    Raises:
        ValueError: there is none of that name, or of that value.
    """
    often = _OFTEN.get(name.removeprefix("pretrain."), ())
    if all(str(each) in often for each in alternatives(value)):
        return
    if _OF_POLICY.fullmatch(name):
        return
    if name in _NUMBERS and all(
        type(each) in (int, float, NoneType) for each in alternatives(value)
    ):
        return
    _look_up(name, value)


def alternatives(value: Any) -> Iterator[Any]:
    """Yield the value, or the values of a list."""
    yield from value if isinstance(value, list | tuple) else [value]


def _look_up(name: str, value: Any) -> None:
    field = _field(name)
    kind = name.removeprefix("pretrain.")
    lookups = {
        "dataset": _look_up_dataset,
        "method": _look_up_method,
        "protocol": _look_up_protocol,
        "policy": _look_up_policy,
        "architecture": _look_up_architecture,
    }
    if kind in lookups:
        for each in alternatives(value):
            lookups[kind](each)
    elif field is not None:
        _try(name, field, value)


def _field(name: str) -> Any:
    """Return the type of a recipe's field; None for facts that no recipe has as a field.

    Raises:
        ValueError: there is no such fact.
    """
    from lowbit.detection import Recipe as DetectionRecipe
    from lowbit.pretrain import Recipe as PretrainRecipe
    from lowbit.transfer import Recipe as TransferRecipe

    fields = {
        **dict(_fields(PretrainRecipe, "pretrain.")),
        **dict(_fields(DetectionRecipe, "")),
        **dict(_fields(TransferRecipe, "")),
        **dict.fromkeys(("task", "method", "training"), None),
    }
    if name not in fields:
        raise ValueError(f"results have no fact {name!r}.{did_you_mean(name, fields)}")
    return fields[name]


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted names of a recipe's fields and sections, with their types."""
    for name, field in model.model_fields.items():
        yield prefix + name, field.annotation
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _fields(kind, f"{prefix}{name}.")


def _try(name: str, field: Any, value: Any) -> None:
    """Refuse a value that neither is one of the field, nor a list of some."""
    kind = TypeAdapter(field)
    try:
        kind.validate_python(tuple(value) if isinstance(value, list) else value)
    except ValidationError:
        for each in alternatives(value):
            try:
                kind.validate_python(each)
            except ValidationError as error:
                words = [word for word in _words(field) if isinstance(word, str)]
                said = did_you_mean(each, words) or f" {error.errors()[0]['msg']}."
                raise ValueError(f"{name} is never {brief(each)}.{said}") from error


def _words(kind: Any) -> Iterator[Any]:
    for part in get_args(kind):
        yield part
        yield from _words(part)


def _look_up_dataset(name: str) -> None:
    from lowbit.data import image_set, list_datasets
    from lowbit.detection.datasets.catalog import check_name, list_detection_sets

    for known in (image_set, check_name):
        try:
            known(name)
        except ValueError:
            continue
        return
    names = [*list_datasets(), *list_detection_sets()]
    raise ValueError(
        f"there is no data set {brief(name)}.{did_you_mean(name, names)} Known: {', '.join(names)}, and "
        "folders of images (folder:NAME, coco:NAME, voc:NAME)"
    )


def _look_up_method(name: str) -> None:
    from lowbit.pretrain import Recipe
    from lowbit.pretrain.frameworks.base import FRAMEWORKS
    from lowbit.pretrain.pairings import PAIRINGS

    made = [
        Recipe(framework=framework, pairing=pairing, architecture="resnet20", dataset="digits")
        for framework, _ in FRAMEWORKS
        for pairing in PAIRINGS
    ]
    names = ["untrained", *(recipe.method for recipe in made)]
    if name not in names:
        raise ValueError(
            f"no pretraining here is the method {brief(name)}.{did_you_mean(name, names)} "
            f"Known: {', '.join(names)}"
        )


def _look_up_protocol(name: str) -> None:
    from lowbit.transfer.recipe.protocol_registry import get_protocol

    get_protocol(name)


def _look_up_policy(value: Any) -> None:
    from lowbit.quant import get_policy

    get_policy(value)


def _look_up_architecture(name: str) -> None:
    from lowbit.backbones import create_backbone

    create_backbone(name)
