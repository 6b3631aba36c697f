"""The built-in image sets: one registered function each, and how each is read."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lowbit.data.image_sets.image_folder import unlocated
from lowbit.data.image_sets.published_sets import (
    Listing,
    Published,
    caltech101_listing,
    from_torchvision,
)
from lowbit.data.image_sets.spec import (
    IMAGE_SETS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ROOT_VARIABLE,
    ImageSet,
)

_DIGITS_SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"


def _read_digits(root: Path) -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits as 32x32 RGB bytes. `root` is not used."""
    images, labels = _enlarged_digits()
    return images.expand(-1, 3, -1, -1).contiguous(), labels.clone()


@cache  # scikit-learn parses its text file at every call
def _enlarged_digits() -> tuple[Tensor, Tensor]:
    """Read the digits, 8x8 with values 0..16, as gray bytes (N, 1, 32, 32), and their labels."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    found = hashlib.sha256(raw.images.astype("uint8").tobytes()).hexdigest()
    if found != _DIGITS_SHA256:
        raise ValueError(
            f"scikit-learn's digits have SHA-256 {found[:12]}... but {_DIGITS_SHA256[:12]}... is "
            "pinned; nothing was loaded. Install the scikit-learn named in requirements.txt."
        )
    small = torch.from_numpy(raw.images).float()[:, None]  # (N, 1, 8, 8)
    # Exact in float32: the bilinear weights of a 4x enlargement are multiples of 1/64.
    large = F.interpolate(small * (255 / 16), size=32, mode="bilinear", align_corners=False)
    return large.round_().to(torch.uint8), torch.from_numpy(raw.target).long()


def _read_cifar(kind: str, root: Path) -> tuple[Tensor, Tensor]:
    """Read CIFAR through torchvision, which checks the published MD5s: training images first."""
    import torchvision

    dataset = getattr(torchvision.datasets, kind)
    try:
        parts = [dataset(root, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(
            f"{kind} is not complete under {root.resolve()}; nothing was loaded. Download it with "
            f'`python -c "import torchvision; torchvision.datasets.{kind}({str(root)!r}, '
            f'download=True)"`, or point ${ROOT_VARIABLE} (or data_root) at a folder that has it.'
        ) from error
    images = torch.cat([torch.from_numpy(part.data).permute(0, 3, 1, 2) for part in parts])
    labels = torch.tensor([label for part in parts for label in part.targets])
    return images.contiguous(), labels


@IMAGE_SETS.register()
def digits() -> ImageSet:
    """Specify scikit-learn's 1,797 handwritten digits: no download, stratified 60/10/30 %."""
    return ImageSet(
        name="digits",
        num_classes=10,
        counts={"train": 1_077, "val": 180, "test": 540},
        size=32,
        mean=(0.3064, 0.3064, 0.3064),
        std=(0.3238, 0.3238, 0.3238),
        pin="ids",
        split_sha256="41e982836f15d3d717eef7859787464f67aca6ac52083c1eaf08290f442073b4",
        read=_read_digits,
    )


# SSQL normalizes CIFAR-100 with CIFAR-10's constants too (official code).
_CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR_STD = (0.2023, 0.1994, 0.2010)


@IMAGE_SETS.register()
def cifar10() -> ImageSet:
    """Specify CIFAR-10; val is 10 % of the official training images, stratified."""
    return ImageSet(
        name="cifar10",
        num_classes=10,
        counts={"train": 45_000, "val": 5_000, "test": 10_000},
        size=32,
        mean=_CIFAR_MEAN,
        std=_CIFAR_STD,
        pin="official",
        split_sha256="947554c2695e7974d754d70f1fd7ca68562d7ac6b7e385ca3f6345191783ad93",
        read=lambda root: _read_cifar("CIFAR10", root),
    )


@IMAGE_SETS.register()
def cifar100() -> ImageSet:
    """Specify CIFAR-100 (fine labels); val is 10 % of the official training images, stratified."""
    return ImageSet(
        name="cifar100",
        num_classes=100,
        counts={"train": 45_000, "val": 5_000, "test": 10_000},
        size=32,
        mean=_CIFAR_MEAN,
        std=_CIFAR_STD,
        pin="official",
        split_sha256="c3bb562f0b2df79e543a80bf3e979d4e11da786456ab8587a205ae0fd29a35b8",
        read=lambda root: _read_cifar("CIFAR100", root),
    )


@IMAGE_SETS.register()
def imagenet() -> ImageSet:
    """Specify ImageNet-1k, `<root>/imagenet/{train,val}/<class>/*.JPEG`.

    The official validation images are the test split, as in the papers; val is 10 images of each
    class, taken from train. "trainval" is the whole published training set.
    """
    return unlocated(
        "imagenet",
        "imagenet",
        num_classes=1_000,
        counts={"train": 1_271_167, "val": 10_000, "test": 50_000},
        val_per_class=10,
    )


def _photographs(listing: Callable[[Path], Listing], **facts: Any) -> ImageSet:
    """Specify a published set of photographs; `listing` lists its files under a root."""

    def folder(root: Path) -> Published:
        return Published(spec, listing(root))

    constants = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    spec = ImageSet(size=None, folder=folder, **constants, **facts)
    return spec


_BOTH = ("top1", "mean_per_class")  # test classes differ in size, or papers report the mean


@IMAGE_SETS.register()
def flowers102() -> ImageSet:
    """Specify Flowers-102; train and val together are the official train and val, 2,040 images."""
    return _photographs(
        lambda root: from_torchvision("flowers102", root, kind="Flowers102", folder="flowers-102"),
        name="flowers102",
        num_classes=102,
        counts={"train": 1_836, "val": 204, "test": 6_149},
        pin="official",
        metrics=_BOTH,
        split_sha256="7f3ff1918e150734b45d84691e37b865d83df53bc3db6cc2503d513fbd38f6ec",
    )


@IMAGE_SETS.register()
def food101() -> ImageSet:
    """Specify Food-101; val is 10 % of the official training images, 75 a class."""
    return _photographs(
        lambda root: from_torchvision(
            "food101", root, kind="Food101", folder="food-101", parts=("train", "test")
        ),
        name="food101",
        num_classes=101,
        counts={"train": 68_175, "val": 7_575, "test": 25_250},
        pin="official",
        split_sha256="ec3cfd5102eb10547c131bf453bc2afcb3f26c5a90a04ebfa69a1f7c9f35ddd5",
    )


@IMAGE_SETS.register()
def pets() -> ImageSet:
    """Specify Oxford-IIIT Pets, 37 breeds; val is 10 images of each in the official trainval."""
    return _photographs(
        lambda root: from_torchvision(
            "pets",
            root,
            kind="OxfordIIITPet",
            folder="oxford-iiit-pet",
            parts=("trainval", "test"),
            files="_images",
        ),
        name="pets",
        num_classes=37,
        counts={"train": 3_310, "val": 370, "test": 3_669},
        pin="official",
        metrics=_BOTH,
        split_sha256="1c0df3d27d82216bae57b4ce0b5b663e183a5c093c065872179fdf04a24331f9",
    )


@IMAGE_SETS.register()
def dtd() -> ImageSet:
    """Specify DTD's split 1; train and val together are its train and val, 80 images a class."""
    return _photographs(
        lambda root: from_torchvision("dtd", root, kind="DTD", folder="dtd/dtd", partition=1),
        name="dtd",
        num_classes=47,
        counts={"train": 3_384, "val": 376, "test": 1_880},
        pin="official",
        split_sha256="6dcc981afb0716690c1c5955da3731a7e6675d2c1b21c64009842e4e126e5198",
    )


@IMAGE_SETS.register()
def caltech101() -> ImageSet:
    """Specify Caltech-101 without background: of each class 10 images go to test, 20 to train.

    SSQL has the same counts but published no list, so its images differ from these.
    """
    return _photographs(
        caltech101_listing,
        name="caltech101",
        num_classes=101,
        counts={"train": 1_818, "val": 202, "test": 1_010},
        pin="drawn",
        metrics=_BOTH,
        split_sha256="9f3f6da3963945b7991b858ba05f7c93cf608694bd5185c5a16d3f06324b4521",
    )
