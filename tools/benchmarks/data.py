"""Cases of `lowbit-bench bench data`: what views cost on one core, beside torchvision on Pillow images."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from lowbit.data import Augment
from lowbit.data.image_sets.spec import Files
from lowbit.data.views.streamed_views import Request, Workshop
from lowbit.tools.benchmarks.timing import Case, ratio_rows

PILLOW = "torchvision on Pillow images"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
VIEWS = 512  # of 32 x 32 pixels; 51.2 ms for them are 10,000 a second
PHOTOS = 8  # of 500 x 375 pixels, two views of 224 x 224 each


def cases(quick: bool = False) -> Iterator[Case]:
    """Yield the rows of the table, group by group; each group is one interleaved run."""
    repeats = 3 if quick else 11
    yield from in_memory("SSQL's", repeats)
    yield from in_memory("CQ's", repeats, scale=(0.1, 1.0), interpolation="bicubic")
    yield from streamed(repeats)


def in_memory(
    whose: str,
    repeats: int,
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    interpolation: str = "bilinear",
) -> Iterator[Case]:
    """Views of CIFAR-sized images: batched floats against one Pillow image after another."""
    generator = torch.Generator().manual_seed(0)
    shape = (VIEWS, 3, 32, 32)
    # Smooth colours: with noise, chroma and clamping would differ from photographs.
    coarse = torch.rand(VIEWS, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=shape[-2:], mode="bicubic")
    images = (255 * smooth.clamp_(0, 1)).to(torch.uint8)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]

    def ours(order: str) -> Callable[[], Tensor]:
        options = {"scale": scale, "interpolation": interpolation, "jitter_order": order}
        augment = Augment(32, mean=MEAN, std=STD, **options)
        return lambda: augment(images, generator)

    theirs = pillow_views(32, scale=scale, interpolation=interpolation)
    variants = {
        PILLOW: lambda: torch.stack([theirs(picture) for picture in pictures]),
        f"{whose} CIFAR views, colours in each sample's order": ours("random"),
        f"{whose} CIFAR views, colours in one order": ours("fixed"),
    }
    targets = dict.fromkeys(list(variants)[1:], 0.15)
    yield from ratio_rows(variants, PILLOW, repeats, targets, note=f"{VIEWS} views of 32 px")


def pillow_views(size: int, *, scale: tuple[float, float], interpolation: str) -> Callable:
    """SSQL's augmentation as in the official code."""
    mode = transforms.InterpolationMode(interpolation)
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=scale, interpolation=mode),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def streamed(repeats: int) -> Iterator[Case]:
    """Two views of a photograph's file: the worker's part of ours, which leaves colours to a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{i}.jpg" for i in range(PHOTOS)]
        for i, path in enumerate(paths):
            photo(i).save(Path(folder, path), quality=90)
        files = Files(Path(folder), np.array([path.encode() for path in paths]))
        workshop = Workshop(files, Augment(224, mean=MEAN, std=STD), seed=0)
        request = Request(epoch=0, positions=list(range(PHOTOS)), views=(0, 1), image=False)
        theirs = pillow_views(224, scale=(0.2, 1.0), interpolation="bilinear")

        def pillow() -> list[Tensor]:
            opened = [Image.open(files[i], formats=["JPEG"]).convert("RGB") for i in range(PHOTOS)]
            return [theirs(picture) for picture in opened for _ in range(2)]

        variants = {PILLOW: pillow, "ImageNet views, a worker's share": lambda: workshop[request]}
        note = f"{PHOTOS} files of 500 x 375 px, two views of 224 px each"
        yield from ratio_rows(variants, PILLOW, repeats, {}, note=note)


def photo(seed: int) -> Image.Image:
    """A picture as hard to decode as a photograph, about 1.3 bits per pixel."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)).resize(
                (500, 375)
            )
        )
        for h, w in ((6, 8), (48, 64), (188, 250))
    ]
    return Image.fromarray(np.average(layers, axis=0, weights=(5, 3, 2)).astype(np.uint8))
