"""Detectron2's catalogs: our records are its own readers', and evaluation by its evaluators."""

import gc
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from lowbit.detection.datasets.catalog import load_detection
from lowbit.detection.evaluation.average_precision import score
from lowbit.detection.evaluation.detections_file import to_detections
from tests.detection.annotated_folders import (
    annotation,
    coco_content,
    write_coco,
    write_image,
    write_voc,
)

pytestmark = pytest.mark.detectron2

BOXES = [
    annotation(11, 7, 5, [2, 3, 10, 8], segmentation=[[2, 3, 12, 3, 12, 11]]),
    annotation(12, 3, 1, [0, 0, 4, 4], segmentation=[[0, 0, 4, 0, 4, 4]]),
    annotation(13, 3, 5, [5.5, 6.25, 10, 10], segmentation=[[6, 7, 15, 7, 15, 16]]),
    annotation(14, 3, 1, [10, 5, 20, 20], iscrowd=1, segmentation=[[10, 5, 30, 5, 30, 25]]),
]
OBJECTS = {
    "a": [("dog", (1, 1, 20, 20), 0), ("cat", (3, 4, 30, 29), 0)],
    "b": [("cat", (2, 2, 11, 6), 0), ("cat", (21, 2, 36, 26), 1)],
    "c": [("cat", (5, 5, 25, 25), 0)],
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    for part in ("train", "val"):
        write_coco(tmp_path / "pets", part, coco_content(BOXES))
    lists = {"trainval": ["a", "b"], "test": ["a", "b", "c"]}
    write_voc(tmp_path / "farm", OBJECTS, lists)
    monkeypatch.setenv("LOWBIT_DATA", str(tmp_path))
    yield tmp_path
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for name in [n for n in DatasetCatalog.list() if "/" in n]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def oracle(images):
    return [
        detection
        for image_id, boxes, labels in zip(images.ids, images.boxes, images.labels, strict=True)
        for detection in to_detections(
            image_id, boxes, torch.ones(len(boxes)), labels, images.category_ids
        )
    ]


def simplify(records):
    """Return what two readers have to agree on; for VOC, Detectron2's has no ids but names."""
    from detectron2.structures import BoxMode

    return [
        (
            record["file_name"],
            (record["height"], record["width"]),
            [
                (
                    list(BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)),
                    a["category_id"],
                    a.get("iscrowd", 0),
                )
                for a in record["annotations"]
            ],
        )
        for record in records
    ]


def test_records_are_those_of_detectron2s_own_readers(root):
    from detectron2.data.datasets import load_coco_json, load_voc_instances

    ours = load_detection("coco:pets", "train").records()
    folder = root / "pets"
    theirs = load_coco_json(
        str(folder / "annotations" / "instances_train.json"), str(folder / "train"), "ours_pets"
    )
    assert simplify(ours) == simplify(theirs)
    assert [r["image_id"] for r in ours] == [r["image_id"] for r in theirs]
    ours = load_detection("voc:farm", "train").records()
    theirs = load_voc_instances(str(root / "farm"), "trainval", ["cat", "dog"])
    assert simplify(ours) == simplify(theirs)


def test_named_sets_are_registered_when_a_configuration_asks_for_them(root):
    from detectron2.data import MetadataCatalog, get_detection_dataset_dicts

    from lowbit.detection.with_detectron2.catalog import EVALUATOR, register_named

    names = ("coco:pets/train", "voc:farm/test", "digit_scenes_val", "coco_2017_val")
    for _ in range(2):  # as every process of a distributed run does
        register_named(names)
    dicts = get_detection_dataset_dicts(["voc:farm/test"], filter_empty=True)
    assert [d["image_id"] for d in dicts] == [1, 2, 3]
    metadata = MetadataCatalog.get("voc:farm/test")
    assert metadata.thing_classes == ["cat", "dog"] and metadata.evaluator_type == EVALUATOR
    dicts = get_detection_dataset_dicts(["coco:pets/train"], filter_empty=True)
    assert [len(a["segmentation"]) for a in dicts[1]["annotations"]] == [1]
    assert MetadataCatalog.get("coco:pets/train").evaluator_type == "coco"
    with pytest.raises(FileNotFoundError, match="coco:nowhere is not complete"):
        register_named(["coco:nowhere/train"])


def test_a_named_set_with_errors_is_refused(root):
    from detectron2.data import DatasetCatalog

    from lowbit.detection.with_detectron2.catalog import register_named

    write_coco(root / "pets", "train", coco_content([annotation(1, 7, 5, [2, 3, 9, 8], area="9")]))
    with pytest.raises(ValueError, match=r"instances_train\.json:\d+: entry 1 of annotations"):
        register_named(["coco:pets/train"])
    write_coco(root / "pets", "train", coco_content([annotation(1, 7, 9, [2, 3, 9, 8])]))
    with pytest.raises(ValueError, match="an unknown class: 1"):
        register_named(["coco:pets/train"])
    with pytest.raises(ValueError, match="no detection set named 'yolo:pets'"):
        register_named(["yolo:pets/train"])
    (root / "farm" / "JPEGImages" / "c.jpg").unlink()
    register_named(["voc:farm/test"])
    with pytest.raises(ValueError, match="a missing image file: 1"):
        DatasetCatalog.get("voc:farm/test")


@pytest.mark.parametrize(
    "change",
    [
        lambda number: {"id": number - 15},
        lambda number: {"id": f"a{number}"},
        lambda number: {"area": None},
        lambda number: {"iscrowd": None},
    ],
    ids=["ids below 1", "text ids", "null area", "null iscrowd"],
)
def test_ids_and_nulls_that_its_evaluator_fails_on_are_completed(root, change):
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import COCOEvaluator

    from lowbit.detection.with_detectron2.catalog import register_named, registered_set

    boxes = [box | change(box["id"]) for box in BOXES[:3]]
    file = write_coco(root / "pets", "val", coco_content(boxes))
    before = file.read_bytes()
    register_named(["coco:pets/test"])
    records = DatasetCatalog.get("coco:pets/test")
    assert [len(a["segmentation"]) for record in records for a in record["annotations"]] == [1] * 3
    evaluator = COCOEvaluator("coco:pets/test", ["bbox"], distributed=False, use_fast_impl=False)
    evaluator.reset()
    evaluator.process(*as_outputs(registered_set("coco:pets/test")))
    assert evaluator.evaluate()["bbox"]["AP"] == 100
    copy = MetadataCatalog.get("coco:pets/test").json_file
    assert file.read_bytes() == before and os.path.exists(copy)
    MetadataCatalog.remove("coco:pets/test")
    DatasetCatalog.remove("coco:pets/test")
    del evaluator
    gc.collect()
    assert not os.path.exists(copy)


@pytest.mark.parametrize("kind", ["plain", "turned", "deep"])
def test_files_are_decoded_by_this_suite_and_augmented_by_detectron2(tmp_path, kind):
    """As Detectron2's own mapper, except for 16-bit images, of which its own makes a white sheet."""
    from detectron2.config import get_cfg
    from detectron2.data import DatasetMapper
    from detectron2.utils.env import seed_all_rng

    from lowbit.detection.with_detectron2.catalog import FileMapper

    cfg = get_cfg()
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = "RGB", (20, 60)
    cfg.INPUT.CROP.ENABLED = True
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    width, height = (30, 40) if kind == "turned" else (40, 30)
    path = str(tmp_path / "x.png")
    if kind == "deep":
        ramp = np.linspace(500, 65000, 1200).reshape(30, 40).astype(np.uint16)
        Image.fromarray(ramp).save(path)
    else:
        write_image(tmp_path / "x.png", exif=exif)
    box = {"bbox": [2, 3, 20, 20], "bbox_mode": 1, "category_id": 0, "iscrowd": 0}
    crowd = {**box, "iscrowd": 1}
    record = {"file_name": path, "height": height, "width": width, "annotations": [box, crowd]}
    for is_train in (True, False):
        found = []
        for kind_of_mapper in (FileMapper, DatasetMapper):
            seed_all_rng(3)
            found.append(kind_of_mapper(cfg, is_train=is_train)(record))
        ours, theirs = found
        assert ours.keys() == theirs.keys() and ours["image"].dtype == torch.uint8
        if kind == "deep":
            assert theirs["image"].eq(255).float().mean() > 0.9
            assert ours["image"].float().std() > 30 and ours["image"].shape == theirs["image"].shape
        else:
            assert ours["image"].equal(theirs["image"])
        if is_train:
            a, b = ours["instances"], theirs["instances"]
            assert len(a) == 1 and a.gt_boxes.tensor.equal(b.gt_boxes.tensor)
    assert len(record["annotations"]) == 2


def test_vocs_detections_have_integer_ids_and_a_map(root, tmp_path):
    """Detectron2's own VOC records name images; the kept file is pycocotools' all the same."""
    from pycocotools.coco import COCO

    from lowbit.detection.with_detectron2.catalog import INFERENCE, KeepDetections

    images = load_detection("voc:farm", "test")
    inputs, outputs = as_outputs(images)
    for sample, name in zip(inputs, "abc", strict=True):
        sample["image_id"] = name
    evaluator = KeepDetections(images, tmp_path)
    evaluator.process(inputs, outputs)
    evaluator.evaluate()
    truth = COCO()
    truth.dataset = images.to_coco()
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / INFERENCE))
    assert loaded.getImgIds() == [1, 2, 3] and len(loaded.getAnnIds()) == 5
    names = json.loads((tmp_path / INFERENCE).with_name("image_names.json").read_text())
    assert names == {"1": "a.jpg", "2": "b.jpg", "3": "c.jpg"}


def test_files_go_through_detectron2s_mapper_without_crowds(root):
    from detectron2.config import get_cfg

    from lowbit.detection.with_detectron2.catalog import Mapper

    cfg = get_cfg()
    cfg.INPUT.FORMAT, cfg.INPUT.RANDOM_FLIP = "RGB", "none"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (60,), 1000
    images = load_detection("coco:pets", "train")
    sample = Mapper(cfg, is_train=True)(images.records()[0])
    assert sample["image"].shape == (3, 60, 80)
    assert torch.equal(sample["instances"].gt_boxes.tensor, 2 * images.boxes[0])
    assert torch.equal(sample["instances"].gt_classes, images.labels[0])


def test_ground_truth_has_ap_100_by_every_evaluator(root):
    from lowbit.detection.evaluation.voc_average_precision import score_voc
    from lowbit.detection.with_detectron2.catalog import SetEvaluator, register_named

    images = load_detection("voc:farm", "test")
    found = oracle(images)
    voc = score_voc(images, found)
    names = [f"{m}_voc{y}" for y in ("07", "12") for m in ("AP", "AP50", "AP75")]
    assert voc.overall == pytest.approx(dict.fromkeys(names, 100.0))
    assert voc.classes == pytest.approx({"cat": 100.0, "dog": 100.0})
    assert score(images.to_coco(), found).overall["AP"] == 100

    evaluator = SetEvaluator(images, root / "run")
    evaluator.process(*as_outputs(images))
    results = evaluator.evaluate()["bbox"]
    assert results["AP"] == 100 and results["AP_voc07"] == pytest.approx(100)
    assert results["AP-cat"] == pytest.approx(100)

    from detectron2.data import get_detection_dataset_dicts
    from detectron2.evaluation import COCOEvaluator

    register_named(["coco:pets/test"])
    get_detection_dataset_dicts(["coco:pets/test"])
    theirs = COCOEvaluator("coco:pets/test", ["bbox"], distributed=False, use_fast_impl=False)
    theirs.reset()
    theirs.process(*as_outputs(load_detection("coco:pets", "test")))
    assert theirs.evaluate()["bbox"]["AP"] == 100


def as_outputs(images):
    """Return a perfect detector's inputs and outputs, as Detectron2's evaluators take them."""
    from detectron2.structures import Boxes, Instances

    inputs, outputs = [], []
    for entry, boxes, labels in zip(
        images.truth["images"], images.boxes, images.labels, strict=True
    ):
        instances = Instances((entry["height"], entry["width"]))
        instances.pred_boxes, instances.pred_classes = Boxes(boxes), labels
        instances.scores = torch.ones(len(boxes))
        inputs.append({"image_id": entry["id"]})
        outputs.append({"instances": instances})
    return inputs, outputs


def test_vocs_metrics_by_hand(root):
    """Two of three cats found, before any miss: precision is 1 up to recall 2/3, then 0.

    2007 samples it at 11 recalls, of which 7 are at most 2/3; 2012 takes the area under it. The
    difficult cat of image b is neither asked for nor punished.
    """
    from lowbit.detection.evaluation.voc_average_precision import score_voc

    images = load_detection("voc:farm", "test")
    cats = [d for d in oracle(images) if d["category_id"] == 1]
    places = {1: 0.9, 3: None, 2: 0.5}
    found = []
    for cat in cats:
        if cat["bbox"][0] == 20:  # the difficult one
            found.append({**cat, "score": 0.95})
        elif places[cat["image_id"]] is not None:
            found.append({**cat, "score": places[cat["image_id"]]})
    scores = score_voc(images, found)  # no dog
    assert scores.classes == pytest.approx({"cat": 100 * 7 / 11, "dog": 0})
    assert scores.overall["AP50_voc07"] == pytest.approx(50 * 7 / 11)
    assert scores.overall["AP50_voc12"] == pytest.approx(50 * 2 / 3)
    wrong = [{**found[0], "image_id": 3, "bbox": [30, 0, 9, 9], "score": 0.99}]
    lower = score_voc(images, found + wrong)
    # Now a miss comes first: precision 1/2, then 2/3, and its best to the right is 2/3.
    assert lower.classes["cat"] == pytest.approx(100 * 7 * (2 / 3) / 11)
    assert lower.overall["AP50_voc12"] == pytest.approx(50 * (2 / 3) ** 2)


def test_detectron2s_own_sets_are_looked_for_under_our_root(monkeypatch):
    from lowbit.detection.with_detectron2.install import import_detectron2

    monkeypatch.setenv("LOWBIT_DATA", "ours")
    monkeypatch.setenv("DETECTRON2_DATASETS", "theirs")
    import_detectron2()
    assert os.environ["DETECTRON2_DATASETS"] == "theirs"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    import_detectron2()
    assert os.environ["DETECTRON2_DATASETS"] == "ours"


def test_vocs_metrics_are_those_of_detectron2s_evaluator(root):
    from detectron2.data.datasets import register_pascal_voc
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    from lowbit.detection.evaluation.voc_average_precision import score_voc

    for file in (root / "farm" / "Annotations").iterdir():  # which asks for more tags
        tags = "<pose>Left</pose><truncated>0</truncated><difficult>"
        file.write_text(file.read_text().replace("<difficult>", tags))
    images = load_detection("voc:farm", "test")
    inputs, outputs = as_outputs(images)
    for sample, name in zip(inputs, "abc", strict=True):  # by which Detectron2 knows them
        sample["image_id"] = name
    for output in outputs:
        boxes = output["instances"].pred_boxes.tensor
        boxes += 1.5 * torch.randn(boxes.shape)
        output["instances"].scores = torch.rand(len(boxes))
    found = [
        detection
        for place, output in enumerate(outputs)
        for detection in to_detections(
            images.ids[place],
            output["instances"].pred_boxes.tensor,
            output["instances"].scores,
            output["instances"].pred_classes,
            images.category_ids,
        )
    ]
    ours = score_voc(images, found).overall
    assert 0 < ours["AP_voc07"] < 100
    for year in (2007, 2012):
        name = f"farm{year}/test"
        register_pascal_voc(name, str(root / "farm"), "test", year, ["cat", "dog"])
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.reset()
        evaluator.process(inputs, outputs)
        theirs = evaluator.evaluate()["bbox"]
        expected = {f"{metric}_voc{year - 2000:02d}": v for metric, v in theirs.items()}
        assert {name: ours[name] for name in expected} == pytest.approx(expected)


def test_objects_that_are_all_difficult_are_refused(tmp_path):
    from lowbit.detection.evaluation.voc_average_precision import score_voc

    write_voc(tmp_path / "hard", {"a": [("cat", (1, 1, 9, 9), 1)]}, {"train": ["a"], "test": ["a"]})
    with pytest.raises(ValueError, match="only difficult objects or none"):
        score_voc(load_detection("voc:hard", "test", root=tmp_path), [])
