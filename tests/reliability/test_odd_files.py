"""Files of strangers: read or refused with one message, soon, in little memory, and nothing runs."""

import json
import logging
import pathlib
import random
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from lowbit.backbones import create_backbone, load_backbone, save_backbone
from lowbit.backbones.checkpoints.file_formats.refusals import CheckpointError
from lowbit.backbones.checkpoints.read_file import META_KEY
from lowbit.benchmark.monitoring.status import Reader
from lowbit.benchmark.monitoring.status_text import describe_status
from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.planning.plan_file import planned_suites
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.recipes.yaml_files import load_yaml, validate
from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.results.result_file import RESULT
from lowbit.benchmark.submissions import BundleError, examine
from lowbit.benchmark.submissions.check_files import check_detections
from lowbit.detection.datasets.catalog import load_detection
from lowbit.detection.datasets.check_annotations import check
from lowbit.detection.evaluation.detections_file import read_detections
from lowbit.transfer.scoring.predictions_file import (
    Predictions,
    read_predictions,
    write_predictions,
)
from tests.benchmark.bundles import Forger
from tests.benchmark.conftest import linear_bundle  # noqa: F401  a fixture
from tests.detection.annotated_folders import annotation, coco_content, write_coco, write_voc
from tests.lowbit.backbones.checkpoints.file_formats.hostile_files import (
    FILES,
    MANY_OBJECTS,
    knot,
)
from tests.reliability.odd_files import damaged, odd_value, read_in_child, swapped

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CANARY = "canary"
_UNUSUAL = (
    torch.complex64,
    torch.float8_e5m2,
    torch.uint16,
    torch.bool,
    torch.int32,
    torch.float64,
)
SUITE = {
    "name": "odd",
    "seeds": [0, 1],
    "precisions": ["FP", "4w4a"],
    "checkpoints": [{"name": "mine", "path": "mine.pth"}],
    "transfer": [{"recipe": "recipe.yaml", "overrides": {"lr": 0.1}}],
}
RECIPE = {"name": "odd", "dataset": "digits", "image_size": 16, "epochs": 1, "lr": [0.1, 0.5]}


class Toucher:
    """What an unpickler that runs code would make a file of."""

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(CANARY),)


@pytest.fixture
def attempt(tmp_path, rng, tally, rounds, monkeypatch):
    """Return a function that makes odd files of a kind, reads each, and returns what went wrong."""
    logging.disable(logging.WARNING)
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.setenv("LOWBIT_DATA", str(tmp_path / "data"))

    def _attempt(kind, make, read, errors, usual=150):
        wrong = []
        for number in range(rounds(usual)):
            path = make(random.Random(f"{rng.random()} {number}"))
            reading = read_in_child(read, path, errors, place)
            tally.add(f"odd files: {kind}", 1, not reading.clean, reading.memory)
            if not reading.clean:
                wrong.append(f"{number}: {reading.ended}")
        return wrong

    yield _attempt
    logging.disable(logging.NOTSET)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    return path


def test_checkpoints(tmp_path, attempt):
    path, net = tmp_path / "odd.pth", create_backbone("resnet10_slim")
    save_backbone(path, net, {"method": "untrained"})
    load_backbone(path)  # finds what every child would find again
    good = path.read_bytes()
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    legacy = path.read_bytes()
    save_file(net.state_dict(), path.with_suffix(".safetensors"))
    tensors = path.with_suffix(".safetensors").read_bytes()

    hostile = [make() for kind, make in FILES.items() if kind not in MANY_OBJECTS]

    def make(rng):
        form = rng.randrange(5)
        if form == 0:
            return write(path, damaged(rng.choice((good, legacy)), rng))
        if form == 1:
            # The header, which says where each tensor is, is a small part of the file.
            length = 8 + int.from_bytes(tensors[:8], "little")
            content = damaged(tensors[:length], rng) + tensors[length:]
            return write(path.with_suffix(".safetensors"), content)
        if form == 2:
            return write(path, rng.choice(hostile))
        odd = (
            torch.zeros(()), torch.zeros(0, 3), torch.zeros(1).expand(2**18, 2**18),
            torch.full((64, 3, 3, 3), float("nan")), torch.zeros(3, dtype=torch.bool), Toucher(),
            torch.zeros(2, 3).to_sparse(), torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
            torch.zeros(2, 3, device="meta"), *(torch.zeros(2, 3).to(t) for t in _UNUSUAL), knot(),
            np.zeros(3, np.longdouble), np.zeros(2, object),
        )  # fmt: skip
        state = swapped(dict(net.state_dict()), rng, odd)
        meta = json.dumps(swapped({"architecture": "resnet10_slim", "method": "SSQL"}, rng))
        ours = {"model": state, META_KEY: meta}
        content = rng.choice((ours, {"state_dict": state}, {"model": state, "epoch": 1}, state))
        zipped = rng.random() < 0.7
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        return path

    assert attempt("checkpoints", make, load_backbone, (CheckpointError, ValueError)) == []


def test_bundles(tmp_path, attempt, linear_bundle):  # noqa: F811
    path, good = tmp_path / "odd.zip", linear_bundle.read_bytes()

    def make(rng):
        if rng.random() < 0.4:
            return write(path, damaged(good, rng))
        shutil.rmtree(folder := tmp_path / "forged", ignore_errors=True)
        forger = Forger(linear_bundle, folder)
        file = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
        if file.suffix == ".json" and rng.random() < 0.8:
            content = swapped(json.loads(file.read_text()), rng)
            write(file, json.dumps(content))
        else:
            write(file, damaged(file.read_bytes(), rng))
        if file.name == "manifest.json":
            shutil.make_archive(str(path.with_suffix("")), "zip", folder)
            return path
        return forger.pack(path)

    assert attempt("bundles", make, examine, (BundleError,)) == []


def test_predictions(tmp_path, attempt):
    parts = [
        Predictions(name, torch.arange(300), torch.arange(300) % 10, {"FP": torch.arange(300) % 9})
        for name in ("test", "val")
    ]
    path = tmp_path / "predictions.parquet"
    write_predictions(
        path, parts, dataset="digits", split_sha256="0" * 64, class_names=list("0123456789")
    )
    good = path.read_bytes()
    read_predictions(path)  # imports what every child would import again

    def make(rng):
        if rng.random() < 0.5:  # the headers of pages, and the footer, are small parts of the file
            at = rng.choice((rng.randrange(60), rng.randrange(len(good) - 2000, len(good))))
            return write(path, good[:at] + damaged(good[at : at + 60], rng) + good[at + 60 :])
        return write(path, damaged(good, rng))

    assert attempt("predictions", make, read_predictions, (ValueError,), usual=600) == []


def test_detections(tmp_path, attempt):
    path = tmp_path / "detections.json"
    good = [
        {"image_id": n, "category_id": 1, "bbox": [0.0, n / 3, 5, 5], "score": 0.5}
        for n in range(9)
    ]

    def make(rng):
        text = json.dumps(swapped(good, rng)).encode()
        return write(path, damaged(text, rng) if rng.random() < 0.5 else text)

    def read(path):
        check_detections(path)
        return list(read_detections(path))

    assert attempt("detections", make, read, (ValueError,)) == []


def test_plans_and_results(tmp_path, attempt, linear_bundle):  # noqa: F811
    """JSON of a runs folder that others may have written: a message, and the file is left out."""
    Forger(linear_bundle, tmp_path / "forged")
    (found,) = (tmp_path / "forged" / "jobs").iterdir()
    job = {"id": found.name, "stage": "transfer", "title": "t", "checkpoint": "mine", "method": "-"}
    job |= {"architecture": "-", "precisions": ["FP"], "needs": [], "facts": {}, "published": None}
    plan_of = {"schema_version": 1, "name": "odd", "reported": [], "jobs": [job]}
    runs = tmp_path / "runs"
    (runs / found.name).mkdir(parents=True)
    result = json.loads((found / RESULT).read_text())

    def make(rng):
        which = rng.random() < 0.5
        for name, content, odd in (
            ("suite-odd.json", plan_of, which),
            (f"{found.name}/{RESULT}", result, not which),
        ):
            text = json.dumps(swapped(content, rng) if odd else content).encode()
            write(runs / name, damaged(text, rng) if odd and rng.random() < 0.3 else text)
        return runs

    def read(path):
        reader = Reader(path)
        said = [describe_status(reader.read(suite)) for suite in planned_suites(path)]
        load_frame(path)
        return said

    assert attempt("plans and results", make, read, (ValueError, FileNotFoundError)) == []


def _yaml(content, rng):
    """Return YAML of odd values, or with tags, anchors and damage that no mapping has."""
    text = yaml.safe_dump(content, allow_unicode=True)
    tags = ("!!python/object/apply:pathlib.Path.touch", "!!binary", "!!set", "!!timestamp", "!x")
    if rng.random() < 0.2:
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = lines[at].replace(
            ": ", f": {rng.choice((*tags, '&a', '*a', '? ', '|', '- '))} "
        )
        text = "\n".join(lines)
    return damaged(text.encode("utf-8", "replace"), rng) if rng.random() < 0.3 else text


def test_recipes(tmp_path, attempt):
    def make(rng):
        return write(tmp_path / "recipe.yaml", _yaml(swapped(RECIPE, rng), rng))

    def read(path):
        return validate("transfer", load_yaml(path), source=path)

    assert attempt("recipes", make, read, (RecipeError,)) == []


def test_suites(tmp_path, attempt):
    write(tmp_path / "recipe.yaml", yaml.safe_dump(RECIPE))
    save_backbone(tmp_path / "mine.pth", create_backbone("resnet10_slim"), {"method": "untrained"})

    def make(rng):
        return write(tmp_path / "suite.yaml", _yaml(swapped(SUITE, rng), rng))

    assert attempt("suites", make, plan, (RecipeError,)) == []


def test_coco_annotations(tmp_path, attempt):
    boxes = [annotation(11, 7, 5, [2, 3, 10, 8]), annotation(12, 3, 1, [0, 0, 40, 30])]
    good = coco_content(boxes)
    for part in ("train", "val"):
        file = write_coco(tmp_path / "data" / "odd", part, good)

    def make(rng):
        content = json.dumps(swapped(good, rng), indent=1)
        return write(
            file.with_name("instances_train.json"),
            damaged(content.encode(), rng) if rng.random() < 0.3 else content,
        )

    def read(path):
        return check(load_detection("coco:odd", "train", root=tmp_path / "data"))

    assert attempt("COCO annotations", make, read, (ValueError, FileNotFoundError)) == []


def test_voc_annotations(tmp_path, attempt):
    objects = {name: [("dog", (1, 1, 40, 30), 0)] for name in "ab"}
    folder = write_voc(
        tmp_path / "data" / "odd", objects, {"trainval": ["a", "b"], "test": ["a", "b"]}
    )
    file = folder / "Annotations" / "a.xml"
    good = file.read_text()

    def make(rng):
        text = good
        for _ in range(rng.choice((1, 3))):
            old = rng.choice(("dog", "40", "30", "<name>", "xmax", "0</difficult>", "size"))
            text = text.replace(old, str(odd_value(rng)), 1)
        return write(
            file, damaged(text.encode("utf-8", "replace"), rng) if rng.random() < 0.4 else text
        )

    def read(path):
        return check(load_detection("voc:odd", "train", root=tmp_path / "data"))

    assert attempt("VOC annotations", make, read, (ValueError, FileNotFoundError)) == []


def test_result_files(tmp_path, attempt, linear_bundle):  # noqa: F811
    """A damaged one is ignored with a warning, so that nothing may be raised at all."""
    forger = Forger(linear_bundle, tmp_path / "taken apart")
    good = json.loads((forger.job / RESULT).read_text())
    folder = tmp_path / "runs" / forger.job.name
    folder.mkdir(parents=True)

    def make(rng):
        content = json.dumps(swapped(good, rng))
        write(folder / RESULT, damaged(content.encode(), rng) if rng.random() < 0.3 else content)
        return tmp_path / "runs"

    assert attempt("result files", make, load_frame, ()) == []
