"""Register detection sets in Detectron2's catalogs, and evaluate them. Needs Detectron2.

COCO and VOC under Detectron2's names (coco_2017_train, voc_2007_test, ...) are registered by
Detectron2, with its evaluators. This module registers this suite's sets: those of recipes, and
those that a configuration names as SET/SPLIT.
"""

import copy
import json
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.data.detection_utils import (
    annotations_to_instances,
    check_image_size,
    transform_proposals,
)
from detectron2.data.transforms import AugInput
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from lowbit.data.decoding import decode
from lowbit.detection.datasets.catalog import check_name, load_detection
from lowbit.detection.datasets.check_annotations import check
from lowbit.detection.datasets.coco_folder import read_part
from lowbit.detection.datasets.coco_json import read_json
from lowbit.detection.datasets.detection_set import DetectionSet, completed
from lowbit.detection.datasets.voc_folder import VocFolder
from lowbit.detection.datasets.voc_lists import read_image_names
from lowbit.detection.evaluation.average_precision import score
from lowbit.detection.evaluation.detections_file import (
    to_detections,
    write_detections,
    write_image_names,
)
from lowbit.detection.evaluation.voc_average_precision import score_voc

EVALUATOR = "lowbit"  # the `evaluator_type` of sets registered here
INFERENCE = Path("inference", "coco_instances_results.json")  # as in COCOEvaluator
_SCENES = "digit_scenes_"  # prefix of a scene set's name in a configuration; the split follows


def register(name: str, load: Callable[[], DetectionSet]) -> None:
    """Register a set as `name`, replacing any other; it is loaded on first use."""
    load = cache(load)

    def records() -> list[dict[str, Any]]:
        images = load()
        MetadataCatalog.get(name).thing_classes = list(images.classes)
        return images.records()

    _forget(name)
    DatasetCatalog.register(name, records)
    MetadataCatalog.get(name).set(evaluator_type=EVALUATOR, detection_set=load)


def register_named(
    names: Iterable[str], *, root: str | None = None, voc_base: int | None = None
) -> None:
    """Register those of `names` that are this suite's sets, for use in configurations.

    They are `SET/SPLIT`, where SET is a data set's name in recipes, as in coco:birds/train,
    voc:raccoon/test or digit-scenes/val; and digit_scenes_train, _val and _test. The annotations are
    checked when they are loaded. `coco:` sets go through Detectron2's own reader, with their masks.

    Args:
        names: names in the configuration's DATASETS.
        root: folder of the sets; default as in recipes.
        voc_base: what the corners of `voc:` sets count from, see `lowbit.detection.datasets.catalog`.

    Other names are left to Detectron2.

    Raises:
        ValueError: there is no such set, or a `coco:` set has errors.
    """
    for name in names:
        if name in DatasetCatalog.list():
            continue
        dataset, slash, split = name.rpartition("/")
        if slash and dataset.startswith("coco:"):
            _register_coco(name, partial(load_detection, dataset, split, root=root))
        elif slash:
            check_name(dataset)
            base = voc_base if dataset.startswith("voc:") else None
            load = partial(load_detection, dataset, split, root=root, voc_base=base)
            register(name, _checked(load))
        elif name.startswith(_SCENES):
            split = name.removeprefix(_SCENES)
            register(name, partial(load_detection, "digit-scenes", split, root=root))


def load_registered(names: Iterable[str]) -> None:
    """Load and check this suite's sets among `names`, so that errors come before a training.

    Raises:
        ValueError: a set has errors.
    """
    for name in names:
        if load := MetadataCatalog.get(name).get("detection_set"):
            load()


def _checked(load: Callable[[], DetectionSet]) -> Callable[[], DetectionSet]:
    def loaded() -> DetectionSet:
        images = load()
        check(images)
        return images

    return loaded


def _register_coco(name: str, load: Callable[[], DetectionSet]) -> None:
    """Register a folder in COCO's format for Detectron2's reader and its COCO evaluator.

    Both read the file themselves. If its annotations have ids, areas or crowds on which the evaluator
    would fail, they are given a completed copy.

    Raises:
        ValueError: the annotations have errors.
    """
    images = load()
    check(images)
    file, kept = images.where.file, None
    folder = images.images.paths[0].removesuffix(images.truth["images"][0]["file_name"])
    if not all(map(_is_complete, images.truth["annotations"])):
        content = read_json(file)
        content["annotations"] = completed(content["annotations"])
        kept = TemporaryDirectory(prefix="lowbit_coco_")  # deleted with the metadata, or at exit
        file = Path(kept.name) / file.name
        file.write_text(json.dumps(content))
    DatasetCatalog.register(name, lambda: load_coco_json(str(file), folder, name))
    facts = {"json_file": str(file), "image_root": folder, "completed": kept}
    MetadataCatalog.get(name).set(evaluator_type="coco", **facts)


def _is_complete(annotation: dict[str, Any]) -> bool:
    """Whether Detectron2's COCO evaluation can use an annotation as it is."""
    number = annotation["id"]
    return type(number) is int and number > 0 and {"area", "iscrowd"} <= annotation.keys()


def registered_set(name: str) -> DetectionSet:
    """Return a registered set as a `DetectionSet`: ours, or Detectron2's in COCO's or VOC's format."""
    metadata = MetadataCatalog.get(name)
    if load := metadata.get("detection_set"):
        return load()
    if metadata.get("evaluator_type") == "pascal_voc":
        parts = {"test": [(Path(metadata.dirname), read_image_names(voc_list(name)))]}
        return VocFolder(name, parts, classes=metadata.thing_classes).load("test")
    folder = Path(metadata.image_root)
    return read_part(Path(metadata.json_file), name=name, split="test", folder=folder)


def voc_list(name: str) -> Path:
    """Return the list of images of a VOC set that Detectron2 registered."""
    metadata = MetadataCatalog.get(name)
    return Path(metadata.dirname, "ImageSets", "Main", f"{metadata.split}.txt")


def _forget(name: str) -> None:
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


class Mapper:
    """Map dataset dicts to a detector's input: scenes unchanged, files as Detectron2 does.

    Scenes have no masks: for Mask R-CNN each digit's mask is its whole box.
    """

    def __init__(self, cfg, *, is_train: bool) -> None:
        self.is_train, self.masks = is_train, cfg.MODEL.MASK_ON
        self.files = cache(lambda: FileMapper(cfg, is_train))  # its constructor writes to the log

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        if "pixels" not in record:
            return self.files()(record)
        size = (record["height"], record["width"])
        sample = {
            "image": torch.from_numpy(record["pixels"]),
            "image_id": record["image_id"],
            "height": size[0],
            "width": size[1],
        }
        if self.is_train:
            boxes = [
                {**a, "bbox": BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)}
                | {"bbox_mode": BoxMode.XYXY_ABS}
                for a in record["annotations"]
            ]
            if self.masks:
                for a in boxes:
                    x1, y1, x2, y2 = a["bbox"]
                    a["segmentation"] = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            sample["instances"] = annotations_to_instances(boxes, size)
        return sample


class FileMapper(DatasetMapper):
    """Detectron2's mapper with this suite's decoder; its own turns 16-bit gray images white."""

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        sample = copy.deepcopy(record)
        pixels = decode(sample["file_name"], upright=True).permute(1, 2, 0).numpy()  # RGB
        check_image_size(sample, pixels)
        augmented = AugInput(pixels[..., ::-1] if self.image_format == "BGR" else pixels)
        transforms = self.augmentations(augmented)
        size = augmented.image.shape[:2]
        sample["image"] = torch.from_numpy(augmented.image.transpose(2, 0, 1).copy())
        if self.proposal_topk is not None:
            transform_proposals(sample, size, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            sample.pop("annotations", None)
        elif "annotations" in sample:
            self._transform_annotations(sample, transforms, size)
        return sample


class KeepDetections(DatasetEvaluator):
    """Write detections to COCOEvaluator's path, for sets that it does not evaluate.

    Args:
        images: the test set.
        folder: the run's folder.
    """

    def __init__(self, images: DetectionSet, folder: str | Path) -> None:
        self.images, self.folder = images, Path(folder)
        self.reset()

    def reset(self) -> None:
        self.detections: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            self.detections += instances_to_detections(
                self.images.image_id(sample["image_id"]),
                output["instances"],
                self.images.category_ids,
            )

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Gather and write the detections of all ranks; scores nothing."""
        gathered = comm.gather(self.detections)
        self.detections = [detection for part in gathered for detection in part]
        if comm.is_main_process():
            path = self.folder / INFERENCE
            path.parent.mkdir(parents=True, exist_ok=True)
            write_detections(path.parent, self.detections, name=path.name)
            write_image_names(path.parent, self.images)


class SetEvaluator(KeepDetections):
    """Score detections by `lowbit.detection.evaluation.average_precision`, as recipes do; VOC's sets also by VOC's metrics."""

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return the scores, on the main process."""
        super().evaluate()
        if not comm.is_main_process():
            return None
        detections = self.detections
        scores = score(self.images.to_coco(), detections)
        overall = dict(scores.overall)
        if self.images.style == "voc":
            overall |= score_voc(self.images, detections).overall
        return {"bbox": {**overall, **{f"AP-{n}": value for n, value in scores.classes.items()}}}


def instances_to_detections(
    image_id: int, instances, category_ids: tuple[int, ...] | None = None
) -> list[dict[str, Any]]:
    """Return one image's `Instances` in COCO's result format."""
    boxes = instances.pred_boxes.tensor
    return to_detections(image_id, boxes, instances.scores, instances.pred_classes, category_ids)
