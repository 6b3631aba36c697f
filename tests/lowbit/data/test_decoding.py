"""Decoding: every kind of image a user brings becomes RGB bytes, or is refused by its name."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from lowbit.data import decoding
from lowbit.data.decoding import decode, image_size, verified_size

RAMP = np.linspace(0, 65535, 12 * 16).reshape(12, 16).astype(np.uint16)
COLOURS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def gray(path):
    image = decode(path)
    assert image.dtype == torch.uint8 and image[0].equal(image[1]) and image[0].equal(image[2])
    return image[0].numpy()


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "I;16"), ("a.tif", "I;16"), ("b.tif", "I;16B"), ("c.tif", "I")]
)
def test_16_bit_values_are_scaled_and_not_clipped(tmp_path, name, mode):
    values = RAMP.astype({"I;16B": ">u2", "I": np.int32}.get(mode, np.uint16))
    image = Image.frombytes(mode, (16, 12), values.tobytes())
    image.save(tmp_path / name)
    with Image.open(tmp_path / name) as saved:
        assert saved.mode == mode
    assert np.abs(gray(tmp_path / name) - RAMP / 257).max() <= 0.5


@pytest.mark.parametrize("values", [RAMP.astype(np.float32) / 65535, RAMP.astype(np.int32) * 9])
def test_numbers_of_an_unknown_range_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=r"x\.tif cannot be decoded \(its pixels are .*32"):
        decode(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=r"x\.tif"):
        verified_size(tmp_path / "x.tif")


def test_other_modes_are_their_colours(tmp_path):
    rgb = Image.fromarray(COLOURS)
    alpha = Image.fromarray(COLOURS[..., 0])
    palette = rgb.quantize(16)
    kinds = {
        "L.png": rgb.convert("L"),
        "LA.png": Image.merge("LA", (rgb.convert("L"), alpha)),
        "RGBA.png": Image.merge("RGBA", (*rgb.split(), alpha)),
        "P.png": palette,
        "1.png": rgb.convert("1"),
        "CMYK.jpg": rgb.convert("CMYK"),
    }
    for name, image in kinds.items():
        options = {"transparency": 3} if name == "P.png" else {}
        image.save(tmp_path / name, **options)
    expected = np.asarray(rgb.convert("L"))
    assert (gray(tmp_path / "L.png") == expected).all()
    assert (gray(tmp_path / "LA.png") == expected).all()
    assert (decode(tmp_path / "RGBA.png").permute(1, 2, 0).numpy() == COLOURS).all()
    seen = decode(tmp_path / "P.png").permute(1, 2, 0).numpy()
    assert (seen == np.asarray(palette.convert("RGB"))).all()
    assert set(np.unique(gray(tmp_path / "1.png"))) == {0, 255}
    assert decode(tmp_path / "CMYK.jpg").shape == (3, 12, 16)


@pytest.mark.parametrize("deep", [False, True])
def test_a_photograph_is_turned_only_on_request(tmp_path, deep):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise makes it upright
    path = tmp_path / "turned.png"
    Image.fromarray(RAMP if deep else COLOURS).save(path, exif=exif)
    as_it_is, turned = decode(path), decode(path, upright=True)
    assert image_size(path) == (12, 16) and image_size(path, upright=True) == (16, 12)
    assert turned.shape == (3, 16, 12) and verified_size(path) == (16, 12)
    assert turned.equal(as_it_is.rot90(-1, (1, 2)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_a_truncated_file_is_found(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.tile(COLOURS, (8, 8, 1))).save(path)
    assert verified_size(path) == (96, 128)
    path.write_bytes(path.read_bytes()[:-200])
    assert image_size(path) == (96, 128)
    with pytest.raises(ValueError, match=rf"x\.{suffix} cannot be decoded"):
        verified_size(path)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "ppm", "tiff", "gif"])
def test_formats_are_told_by_their_first_bytes(tmp_path, kind):
    Image.fromarray(COLOURS[..., 0]).save(
        tmp_path / "x.jpg", kind
    )  # as some of Oxford-IIIT Pets' are
    assert decode(tmp_path / "x.jpg").shape == (3, 12, 16) and verified_size(
        tmp_path / "x.jpg"
    ) == (12, 16)


@pytest.mark.parametrize("kind", ["pcx", "tga", "eps", "ico", "sgi", "jpeg2000"])
def test_other_formats_are_refused_whatever_their_names_are(tmp_path, kind):
    Image.fromarray(COLOURS).save(tmp_path / "x.png", kind)
    for read in (decode, image_size, verified_size):
        with pytest.raises(ValueError, match=r"x\.png cannot be decoded \(cannot identify"):
            read(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["a named pipe", "a folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "x.png"
    path.mkdir() if kind == "a folder" else os.mkfifo(path)
    for read in (decode, image_size, verified_size):
        with pytest.raises(
            ValueError, match=rf"x\.png cannot be decoded \(it is {kind}, not a file"
        ):
            read(path)


def test_declared_pixels_are_bounded_whatever_pillows_limit_is(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 12 * 16)
    Image.fromarray(COLOURS).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png").shape == (3, 12, 16)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 12 * 16 - 1)
    for read in (decode, image_size, verified_size):
        with pytest.raises(ValueError, match=r"x\.png .*it has 16 x 12 pixels, more than 191"):
            read(tmp_path / "x.png")


def test_what_is_no_image_or_too_large_is_refused_by_name(tmp_path, monkeypatch):
    (tmp_path / "text.jpg").write_text("no image")
    Image.fromarray(COLOURS).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)  # Pillow refuses twice as many
    for name in ("text.jpg", "large.png", "missing.png"):
        for read in (decode, image_size, verified_size):
            with pytest.raises(ValueError, match=rf"{name} cannot be decoded"):
                read(tmp_path / name)
