"""Registry of detection sets: digit scenes, which need no download, and COCO and VOC folders."""

import json
import os
from pathlib import Path
from typing import Protocol

from fvcore.common.registry import Registry
from PIL import Image

from lowbit.common.input_files.file_names import expanded, is_name
from lowbit.common.input_files.found_once import once
from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief
from lowbit.data.image_sets.spec import ROOT_VARIABLE
from lowbit.detection.datasets.coco_folder import CocoFolder
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.datasets.digit_scene_set import DigitScenes
from lowbit.detection.datasets.digit_scenes import Layout
from lowbit.detection.datasets.voc_folder import VocFolder, custom_voc, voc_folder

DETECTRON2_ROOT = "DETECTRON2_DATASETS"

DETECTION_SETS = Registry("DETECTION_SETS")
DETECTION_SETS.__doc__ = """
Registry of detection sets. Register a function (root, *, layout, seed) that returns a `Source`;
its name with `-` for `_` is the data set's name in recipes. `root` is the folder of the sets;
`layout` and `seed` apply to scenes only.
"""


class Source(Protocol):
    """Where the splits of a detection set come from."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has."""

    def load(self, split: str, count: int | None = None) -> DetectionSet:
        """Load `count` images of a split ("train", "val" or "test"); None: all of them."""

    def sha256(self, *, train: int | None, test: int | None, test_split: str) -> str:
        """Hash what determines `train` training and `test` test images, without drawing any."""


_FOLDERS = ("coco", "voc")  # formats of a folder, FORMAT:NAME


def list_detection_sets() -> list[str]:
    """List the registered detection sets, sorted; `coco:NAME` and `voc:NAME` name any folder."""
    return sorted(name.replace("_", "-") for name, _ in DETECTION_SETS)


def check_name(name: str) -> str:
    """Return the name of a detection set, unchanged.

    Raises:
        ValueError: there is no such set.
    """
    prefix, colon, folder = name.partition(":")
    if colon and prefix in _FOLDERS and is_name(folder):
        return name
    if name in list_detection_sets():
        return name
    raise ValueError(
        f"there is no detection set named {brief(name)}; nothing was loaded."
        f"{did_you_mean(name, list_detection_sets())} Known sets: {', '.join(list_detection_sets())}; coco:NAME and voc:NAME stand for the "
        "folder NAME, which is no path, of annotated images under $LOWBIT_DATA (or data_root)."
    )


def find_source(
    name: str,
    *,
    layout: Layout | None = None,
    seed: int = 0,
    root: str | os.PathLike | None = None,
    voc_base: int | None = None,
) -> Source:
    """Find a detection set.

    Args:
        name: a registered set, `coco:NAME` or `voc:NAME`.
        layout: layout of the scenes.
        seed: seed of the stream of scenes.
        root: folder of the sets; default: the first of `$LOWBIT_DATA`, `$DETECTRON2_DATASETS` and
            `./datasets` that contains it.
        voc_base: of `voc:NAME`: what corners count from. 1: pixels, inclusive, as VOC's do. 0: borders,
            as tools that convert from COCO write them. None: 1, and the check refuses a corner of 0.

    Raises:
        ValueError: there is no such set, or it has no `voc_base`.
        FileNotFoundError: its files are missing.
    """
    prefix, colon, folder = check_name(name).partition(":")
    if prefix + colon == "voc:":
        return voc_folder(name, _locate(folder, root) / folder, base=voc_base)
    if voc_base is not None:
        raise ValueError(
            f"voc_base is {voc_base}, which only voc:NAME has; nothing was loaded. Leave it out for "
            f"{name}."
        )
    if not colon:
        found = DETECTION_SETS.get(name.replace("-", "_"))
        return found(root, layout=layout, seed=seed)
    return CocoFolder(name, _locate(folder, root) / folder)


def load_detection(name: str, split: str, count: int | None = None, **options) -> DetectionSet:
    """Load a split of a detection set: its annotations now, its images on access.

    Args:
        name: a registered set, `coco:NAME` or `voc:NAME`.
        split: "train", "val" or "test".
        count: number of images; None: all of them.
        options: layout, seed, root and voc_base, see `find_source`.
    """
    return find_source(name, **options).load(split, count)


def detection_sha256(
    name: str, *, train: int | None, test: int | None, test_split: str = "test", **options
) -> str:
    """Hash the choice of training and test images; reads annotations, but no images.

    A plan does so once for each choice: VOC has a file for each of 21,503 images.
    """
    chosen = {"train": train, "test": test, "test_split": test_split}
    key = ("detection", name, repr((chosen, sorted(options.items()))))
    return once(key, lambda: find_source(name, **options).sha256(**chosen))


@DETECTION_SETS.register()
def coco(root, *, layout: Layout | None = None, seed: int = 0) -> CocoFolder:
    """Find COCO 2017: trained on train2017, tested on val2017."""
    path = _locate("coco", root) / "coco"
    return CocoFolder("coco", path, parts=("train2017", "val2017"))


@DETECTION_SETS.register()
def voc0712(root, *, layout: Layout | None = None, seed: int = 0) -> VocFolder:
    """Find VOC: trained on trainval of 2007 and of 2012, tested on test of 2007."""
    return custom_voc(_locate("VOC2007", root))


@DETECTION_SETS.register()
def digit_scenes(root, *, layout: Layout | None = None, seed: int = 0) -> DigitScenes:
    """Set up digit scenes of a layout, in the stream of the seed."""
    return DigitScenes(layout or Layout(), seed=seed, root=root)


def export_coco(images: DetectionSet, folder: str | Path) -> Path:
    """Write a set in COCO's layout: `<split>/` and `annotations/instances_<split>.json`.

    Returns the annotation file.
    """
    folder = Path(folder)
    truth = images.to_coco()
    pictures = folder / images.split
    pictures.mkdir(parents=True, exist_ok=True)
    for index, entry in enumerate(truth["images"]):
        Image.fromarray(images.image(index).permute(1, 2, 0).numpy()).save(
            pictures / entry["file_name"]
        )
    path = folder / "annotations" / f"instances_{images.split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(truth))
    return path


def _locate(folder: str, root: str | os.PathLike | None) -> Path:
    """Return the given root, else the first default root with the folder, else the first default."""
    if root:
        return Path(root)
    usual = (os.environ.get(ROOT_VARIABLE), os.environ.get(DETECTRON2_ROOT), "datasets")
    roots = [expanded(name) for name in usual if name]
    return next((path for path in roots if (path / folder).is_dir()), roots[0])
