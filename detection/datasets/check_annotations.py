"""Check a set's annotations before training starts."""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lowbit.common.text import printable
from lowbit.data.decoding import verified_size
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.datasets.images_on_disk import ImageFiles

_logger = logging.getLogger(__name__)

_SHOWN = 5  # findings of one kind that a message lists
_LONGEST = 600  # characters of one, which may quote a path and a class
_ROUNDING = 0.01  # pixels by which rounding to two decimals may move a coordinate past the border


@dataclass(frozen=True)
class Finding:
    """One problem in the annotations.

    Attributes:
        kind: the kind of problem; findings of one kind are reported together.
        section, entry_id: the entry at fault in the ground truth.
        what: the details.
        fatal: whether it prevents training; if not, `kind` says how it is handled.
    """

    kind: str
    section: str
    entry_id: Any
    what: str
    fatal: bool


def check(images: DetectionSet, *, undone: str = "trained") -> list[Finding]:
    """Refuse annotations that would break training or evaluation; log harmless problems.

    Args:
        images: the set.
        undone: what is not done with a refused set.

    Returns:
        the harmless findings.

    Raises:
        ValueError: there are fatal ones; the message names the file and line of the first of each
            kind.
    """
    findings = list(find_problems(images))
    fatal = [finding for finding in findings if finding.fatal]
    if fatal:
        raise ValueError(
            f"the annotations of {images.split} of {images.name} have {len(fatal)} errors; nothing "
            f"was {undone}. Correct them, or remove the images:\n"
            + "\n".join(describe(images, fatal))
        )
    if findings:
        lines = "\n".join(describe(images, findings))
        _logger.warning("annotations of %s of %s:\n%s", images.split, images.name, lines)
    return findings


def check_pair(train: DetectionSet, test: DetectionSet) -> None:
    """Check the training set, the test set, and that the two match.

    Raises:
        ValueError: either has fatal findings, they differ in their classes, or they share images.
    """
    check(train)
    check(test)
    check_match(train, test)


def check_match(train: DetectionSet, test: DetectionSet) -> None:
    """Refuse two sets that differ in their classes or share images.

    Raises:
        ValueError: they do.
    """
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes)) or "their order"
        raise ValueError(
            f"{train.split} and {test.split} of {train.name} differ in their classes "
            f"({differing}); nothing was trained. Give both the same categories."
        )
    if isinstance(train.images, ImageFiles) and isinstance(test.images, ImageFiles):
        shared = sorted(set(train.images.paths) & set(test.images.paths))
        if shared:
            raise ValueError(
                f"{len(shared)} images of {test.split} of {test.name} are also training images (such as "
                f"{shared[0]}); nothing was trained. Remove them from one of the lists."
            )


def problems(sets: Mapping[str, DetectionSet]) -> list[str]:
    """Return what `check_pair` would refuse, and the same of val; nothing is raised.

    Args:
        sets: "train", "test" and, if there is one, "val".
    """
    found = []
    checks = [partial(check, images, undone="changed") for images in sets.values()]
    for one in (*checks, partial(check_match, sets["train"], sets["test"])):
        try:
            one()
        except ValueError as error:
            found.append(str(error))
    return found


def find_problems(images: DetectionSet) -> Iterator[Finding]:
    """Yield every problem of a set: in its lists, its image files and its objects."""
    truth = images.truth
    for section in ("images", "annotations", "categories"):
        yield from _duplicates(section, [entry["id"] for entry in truth[section]])
    names = Counter(category["name"] for category in truth["categories"])
    for category in truth["categories"]:
        if names[category["name"]] > 1:
            yield _fatal("a class name twice", "categories", category, repr(category["name"]))
    if not any(map(_counts, truth["annotations"])):
        what = f"{len(images)} images with no object but crowds and boxes without area"
        yield Finding("no annotated object", "images", next(iter(images.ids), None), what, True)
    yield from _image_problems(images)
    yield from _voc_problems(images)
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for annotation in truth["annotations"]:
        yield from _object_problems(annotation, sizes, categories)


def describe(images: DetectionSet, findings: list[Finding]) -> list[str]:
    """Return one line per finding, with its file and line; only the first few of each kind."""
    by_kind = defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    lines = []
    for kind, alike in by_kind.items():
        lines.append(f"  {kind}: {len(alike)}")
        lines += [
            f"    {images.where(f.section, f.entry_id)}: {printable(f.what, _LONGEST)}"
            for f in alike[:_SHOWN]
        ]
        if len(alike) > _SHOWN:
            lines.append(f"    and {len(alike) - _SHOWN} more")
    return lines


def _duplicates(section: str, ids: list) -> Iterator[Finding]:
    for entry_id, times in Counter(ids).items():
        if times > 1:
            yield Finding(f"an id twice in {section}", section, entry_id, f"id {entry_id!r}", True)


def _image_problems(images: DetectionSet) -> Iterator[Finding]:
    if not isinstance(images.images, ImageFiles):
        return
    times = Counter(images.images.paths)
    for image, path in zip(images.truth["images"], images.images.paths, strict=True):
        if times[path] > 1:
            yield _fatal("an image file twice", "images", image, path)
        if not Path(path).is_file():
            yield _fatal("a missing image file", "images", image, f"there is no {path}")
            continue
        try:
            found = verified_size(path)
        except ValueError as error:
            yield _fatal("a damaged image file", "images", image, str(error).split(";")[0])
            continue
        said = (image["height"], image["width"])
        if found != said:
            what = f"{path} is {found[1]}x{found[0]} upright, not {said[1]}x{said[0]}"
            yield _fatal("an image of another size", "images", image, what)


def _voc_problems(images: DetectionSet) -> Iterator[Finding]:
    """Yield the corners that deny the coordinates' base, and a test set that VOC's metrics cannot score."""
    if images.style != "voc":
        return
    annotations = images.truth["annotations"]
    for annotation in annotations:
        low = min(annotation["bbox"][:2])
        if images.voc_base is None and -1 <= low < 0:
            yield _fatal(
                "a corner below 1, where VOC counts from 1; set voc_base: 0 if this set counts from 0 "
                "(box [xmin, ymin, xmax - xmin, ymax - ymin]), or voc_base: 1 to clip the box",
                "annotations",
                annotation,
                f"annotation {annotation['id']}: a corner of {low + 1:g}",
            )
    if images.split != "train" and annotations and all(a["difficult"] for a in annotations):
        what = f"{len(annotations)} objects"
        first = next(iter(images.ids), None)
        yield Finding("only difficult objects to test on", "images", first, what, True)


def _counts(annotation: dict[str, Any]) -> bool:
    """Whether an object is trained on and asked for in evaluation."""
    return not annotation.get("iscrowd", 0) and min(annotation["bbox"][2:]) > 0


def _object_problems(
    annotation: dict[str, Any], sizes: dict[Any, tuple[int, int]], categories: set
) -> Iterator[Finding]:
    def fatal(kind: str, what: str) -> Finding:
        return _fatal(kind, "annotations", annotation, what)

    def harmless(kind: str, what: str) -> Finding:
        return Finding(kind, "annotations", annotation["id"], f"{about}: {what}", False)

    about = f"annotation {annotation['id']}"
    if annotation["category_id"] not in categories:
        yield fatal("an unknown class", f"{about}: class {annotation['category_id']!r}")
    if "area" not in annotation:
        yield harmless("a missing area, taken to be the box's", "no area")
    if "iscrowd" not in annotation:
        yield harmless("a missing iscrowd, taken to be 0", "no iscrowd")
    if annotation["image_id"] not in sizes:
        yield fatal("an unknown image", f"{about}: image {annotation['image_id']!r}")
        return
    box = annotation["bbox"]
    if len(box) != 4 or not all(math.isfinite(value) for value in box) or min(box[2:]) < 0:
        yield fatal("a box that is none", f"{about}: {box}")
        return
    (x, y, w, h), (width, height) = box, sizes[annotation["image_id"]]
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        yield fatal("a box outside its image", f"{about}: {box} in {width}x{height}")
        return
    beyond = max(-x, -y, x + w - width, y + h - height)
    if beyond > _ROUNDING:
        yield harmless(
            "a box that reaches out of its image, clipped", f"by {beyond:g} pixels: {box}"
        )
    if w == 0 or h == 0:
        yield harmless("a box without area, not trained on", f"{box}")


def _fatal(kind: str, section: str, entry: dict[str, Any], what: str) -> Finding:
    return Finding(kind, section, entry["id"], what, True)
