"""YOLOv4 on a folder in VOC's format: its average precision by VOC's own evaluator, in each engine."""

import random

import pytest
import torch

from lowbit.detection import run
from lowbit.detection.datasets.catalog import load_detection
from lowbit.detection.evaluation.detections_file import read_detections
from lowbit.detection.evaluation.voc_average_precision import score_voc
from tests.detection.annotated_folders import write_voc

pytestmark = pytest.mark.detectron2


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """Twelve images of 40 x 30 pixels with one or two objects each, of two classes, some difficult."""
    root, draw = tmp_path_factory.mktemp("sets"), random.Random(0)
    objects = {}
    for number in range(12):
        found = []
        for _ in range(draw.choice((1, 2))):
            x, y = draw.randrange(1, 20), draw.randrange(1, 15)
            box = (x, y, x + draw.randrange(8, 20), y + draw.randrange(8, 15))
            found.append((draw.choice(("cat", "dog")), box, int(draw.random() < 0.2)))
        objects[f"{number:06d}"] = found
    names = list(objects)
    lists = {"trainval": names[:8], "test": names[8:]}
    folder = write_voc(root / "birds", objects, lists)
    for file in (folder / "Annotations").glob("*.xml"):  # what Detectron2's evaluator reads as well
        more = "<pose>-</pose><truncated>0</truncated>"
        file.write_text(file.read_text().replace("<difficult>", f"{more}<difficult>"))
    return root


def recipe_of(make_yolov4, birds, **changes):
    return make_yolov4(
        engine="detectron2",
        dataset="voc:birds",
        data_root=str(birds),
        train_images=None,
        test_images=None,
        test_size=64,
        max_size=96,
        flip=True,
        **changes,
    )


def test_numbers_are_those_of_vocs_evaluator(make_yolov4, birds, tmp_path):
    """Of Detectron2's, given the detections that the job kept."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_pascal_voc
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    result = run(recipe_of(make_yolov4, birds, iterations=30), tmp_path)
    found = {m["metric"]: m["value"] for m in result["measurements"]}
    detections = list(read_detections(tmp_path / "detections.json"))
    images = load_detection("voc:birds", "test", root=str(birds))
    assert len(detections) > 20
    ours = score_voc(images, detections).overall
    for metric in ("AP_voc07", "AP50_voc07", "AP75_voc07", "AP_voc12"):
        assert found[metric] == ours[metric]
    # Theirs reads scores of three digits and corners of one: ranks and corners that it reads whole.
    detections.sort(key=lambda d: -d["score"])
    for rank, detection in enumerate(detections):
        x, y, width, height = detection["bbox"]
        corners = [round(v, 1) for v in (x, y, x + width, y + height)]
        detection["bbox"] = [*corners[:2], corners[2] - corners[0], corners[3] - corners[1]]
        detection["score"] = (999 - rank) / 1000
    name = "yolov4_birds_test"
    if name not in DatasetCatalog.list():
        register_pascal_voc(name, str(birds / "birds"), "test", 2007, class_names=images.classes)
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.reset()
    for number, image in zip(images.ids, images.truth["images"], strict=True):
        own = [d for d in detections if d["image_id"] == number]
        boxes = torch.tensor([d["bbox"] for d in own]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [images.category_ids.index(d["category_id"]) for d in own]
        instances = Instances(
            (image["height"], image["width"]),
            pred_boxes=Boxes(boxes),
            scores=torch.tensor([d["score"] for d in own]),
            pred_classes=torch.tensor(labels, dtype=torch.int64),
        )
        stem = image["file_name"].rpartition("/")[2].removesuffix(".jpg")
        evaluator.process([{"image_id": stem}], [{"instances": instances}])
    theirs = evaluator.evaluate()["bbox"]
    MetadataCatalog.remove(name)
    DatasetCatalog.remove(name)
    ours = score_voc(images, detections).overall
    for metric in ("AP", "AP50", "AP75"):
        assert ours[f"{metric}_voc07"] == pytest.approx(theirs[metric], abs=1e-6)


def test_both_engines_train_on_photographs(make_yolov4, birds, tmp_path):
    """Resized, mirrored and put together, with anchors of their boxes."""
    anchors = []
    for engine in ("torchvision", "detectron2"):
        folder = tmp_path / engine
        folder.mkdir()
        recipe = recipe_of(make_yolov4, birds, yolov4={"anchors": "kmeans"}, train_sizes=(48, 64))
        result = run(recipe.model_copy(update={"engine": engine}), folder)
        assert result["details"]["images"] == {"train": 8, "test": 4}
        anchors.append(result["details"]["anchors"])
    assert anchors[0] == anchors[1]
