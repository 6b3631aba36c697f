"""Digit scenes: handwritten digits on textured backgrounds, generated from a seed.

A scene is a pure function of (digits, layout, seed, index): one numpy `Generator` per scene and no
shared state, so any scene can be drawn on its own, and sets of different lengths agree on their
common part. A box encloses exactly the pixels that its digit painted.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

NOISE = 0.02  # standard deviation of the sensor's noise, units of 0..1
INK = 0.15  # lowest coverage at which a resized digit paints a pixel
_PLACEMENTS = 40  # positions tried before a digit is left out


@dataclass(frozen=True)
class Layout:
    """The layout of a scene.

    Attributes:
        size: side of the square canvas, pixels.
        digits: fewest and most digits per scene, inclusive.
        digit_size: smallest and largest height of a digit, pixels, inclusive.
        overlap: largest share of a digit's box that another box may cover.
    """

    size: int = 128
    digits: tuple[int, int] = (2, 6)
    digit_size: tuple[int, int] = (16, 40)
    overlap: float = 0.1

    def __post_init__(self) -> None:
        few, many = self.digits
        small, large = self.digit_size
        if not (1 <= few <= many and 4 <= small <= large <= self.size and 0 <= self.overlap < 1):
            raise ValueError(
                f"no scene can be drawn with {self}; nothing was drawn. Use at least one digit, "
                "heights from 4 pixels to the canvas's side, and an overlap in [0, 1)."
            )


@dataclass(frozen=True)
class Scene:
    """One scene: image uint8 (3, size, size), boxes float32 (n, 4) x1 y1 x2 y2, labels (n,)."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def draw_scene(digits: np.ndarray, labels: np.ndarray, *, layout: Layout, seed, index) -> Scene:
    """Draw scene number `index` of the stream of `seed`.

    Args:
        digits: coverage of the digits to choose from, float32 (N, h, w) in 0..1.
        labels: their classes, int64 (N,).
        layout: layout of the scene.
        seed: an integer, or a sequence of them.
        index: the scene's position in the stream.
    """
    rng = np.random.default_rng([*np.atleast_1d(seed).tolist(), index])
    canvas, light = draw_background(rng, layout.size)
    ink = _ink_colour(rng, light)
    boxes: list[tuple[int, int, int, int]] = []
    chosen: list[int] = []
    for _ in range(rng.integers(layout.digits[0], layout.digits[1] + 1)):
        pick = int(rng.integers(len(digits)))
        height = int(rng.integers(layout.digit_size[0], layout.digit_size[1] + 1))
        stamp = draw_stamp(digits[pick], height)
        box = _place(rng, stamp.shape, boxes, layout)
        if box is None:
            continue
        x1, y1, x2, y2 = box
        colour = ink + rng.uniform(-0.06, 0.06, (3, 1, 1))
        canvas[:, y1:y2, x1:x2] += stamp * (colour - canvas[:, y1:y2, x1:x2])
        boxes.append(box)
        chosen.append(pick)
    canvas += rng.normal(0, NOISE, canvas.shape)  # over both digits and background
    return Scene(
        image=(canvas.clip(0, 1) * 255).round().astype(np.uint8),
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=labels[chosen].astype(np.int64),
    )


def draw_background(rng: np.random.Generator, size: int) -> tuple[np.ndarray, float]:
    """Draw a gradient with two octaves of smooth noise; return it (3, size, size) and its lightness.

    Values are in units of 0..1 and not clipped; the lightness is the mean over the canvas.
    """
    canvas = rng.uniform(0.15, 0.85) + rng.uniform(-0.12, 0.12, (3, 1, 1))
    ramp = np.linspace(-1, 1, size)
    slope_x, slope_y = rng.uniform(-0.12, 0.12, (2, 3, 1, 1))
    canvas = canvas + slope_x * ramp[None, None, :] + slope_y * ramp[None, :, None]
    for cells, strength in ((4, 0.08), (16, 0.05)):
        up = resize_matrix(cells, size)
        canvas = canvas + strength * rng.uniform(0.3, 1) * (
            up @ rng.normal(size=(3, cells, cells)) @ up.T
        )
    return canvas, float(canvas.mean())


def draw_stamp(digit: np.ndarray, height: int) -> np.ndarray:
    """Resize a digit so that its ink is about `height` pixels high; return its coverage, cropped.

    Every border row and column of the result has a pixel of ink, so its outline is a tight box.
    """
    ink = _crop(digit, digit >= 0.5 * digit.max())
    width = max(3, round(height * ink.shape[1] / ink.shape[0]))
    stamp = resize_matrix(ink.shape[0], height) @ ink @ resize_matrix(ink.shape[1], width).T
    return _crop(np.where(stamp >= INK, stamp, 0), stamp >= INK)


@lru_cache(maxsize=512)
def resize_matrix(old: int, new: int) -> np.ndarray:
    """Return the (new, old) matrix of a linear resize; shrinking averages (a widened triangle)."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    distance = np.abs(centres[:, None].clip(0, old - 1) - np.arange(old)[None, :])
    weights = np.maximum(0, 1 - distance / max(1, old / new))
    weights /= weights.sum(1, keepdims=True)
    weights.setflags(write=False)
    return weights


def _ink_colour(rng: np.random.Generator, light: float) -> np.ndarray:
    """Choose a colour (3, 1, 1) clearly lighter or darker than a background of lightness `light`."""
    contrast = rng.uniform(0.35, 0.6)
    room_above = light + contrast <= 1
    room_below = light - contrast >= 0
    lighter = rng.random() < 0.5 if room_above == room_below else room_above
    return light + (contrast if lighter else -contrast) + rng.uniform(-0.1, 0.1, (3, 1, 1))


def _place(rng, shape: tuple[int, int], boxes: list, layout: Layout) -> tuple | None:
    """Find a position (x1, y1, x2, y2) for a stamp of `shape`; None if none was found."""
    height, width = shape
    if max(shape) > layout.size:
        return None
    for _ in range(_PLACEMENTS):
        x1 = int(rng.integers(layout.size - width + 1))
        y1 = int(rng.integers(layout.size - height + 1))
        box = (x1, y1, x1 + width, y1 + height)
        if all(_cover(box, other) <= layout.overlap for other in boxes):
            return box
    return None


def _cover(a: tuple, b: tuple) -> float:
    """Return the overlap of two boxes as a share of the smaller one."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    area = min((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    return wide * high / area


def _crop(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(keep.any(1)), np.flatnonzero(keep.any(0))
    return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
