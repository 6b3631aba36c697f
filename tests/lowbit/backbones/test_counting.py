"""Operations of a network: hand-counted, the papers', and kept once counted."""

import json
import os

import pytest
from torch import nn

from lowbit.backbones import counting
from lowbit.backbones.counting import network_size


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """Keep what is counted in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network_size.cache_clear()
    yield tmp_path / "lowbit-bench" / "networks.json"
    network_size.cache_clear()


def test_operations_are_two_a_multiply_add(monkeypatch):
    """3x3 convolution to 8 channels, padding 1: 3*9*8 multiply-adds a pixel; then 8 x 10."""

    class Tiny(nn.Sequential):
        num_features = 10

    net = lambda _: Tiny(  # noqa: E731
        nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    monkeypatch.setattr("lowbit.backbones.networks.registry.create_backbone", net)
    size = network_size("tiny", 16)
    assert size.operations == 2 * (16 * 16 * 3 * 9 * 8 + 80)
    assert size.parameters == 3 * 9 * 8 + 8 + 80 + 10
    assert (size.features, size.levels) == (10, ())


def test_resnet50_has_the_4_1_billion_multiply_adds_of_the_literature():
    size = network_size("resnet50", 224)
    assert size.operations / 2e9 == pytest.approx(4.09, abs=0.01)
    assert size.parameters == 23_508_032
    assert size.levels == ((256, 4), (512, 8), (1024, 16), (2048, 32))


def test_what_was_counted_is_kept(kept, monkeypatch):
    first = network_size("resnet20", 32)
    network_size.cache_clear()
    monkeypatch.setattr(counting, "_counted", lambda *_: pytest.fail("counted again"))
    assert network_size("resnet20", 32) == first


KEY = f"resnet20 32 {counting._versions()}"


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[" * 10_000,
        b"\xff\xfe",
        b"[]",
        b"3",
        *(json.dumps({KEY: entry}).encode() for entry in ({}, [], 3, {"levels": 3})),
        json.dumps(
            {KEY: {"operations": "a", "parameters": 1, "features": 1, "levels": []}}
        ).encode(),
        json.dumps({"another": {}}).encode(),
    ],
)
def test_a_damaged_file_is_counted_over(kept, content):
    kept.parent.mkdir()
    kept.write_bytes(content)
    assert network_size("resnet20", 32).features == 64
    assert json.loads(kept.read_bytes())[KEY]["features"] == 64


def test_what_is_no_file_is_not_waited_for(kept):
    kept.parent.mkdir()
    os.mkfifo(kept)
    assert network_size("resnet20", 32).features == 64


def test_a_container_may_have_no_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert network_size("resnet20", 32).features == 64


def test_images_that_no_memory_holds_are_refused():
    with pytest.raises(ValueError, match="does not accept images of 1000000000 pixels"):
        network_size("resnet20", 10**9)


def test_a_network_that_takes_no_such_images_is_refused():
    with pytest.raises(ValueError, match="does not accept images of 100 pixels"):
        network_size("deit_tiny_patch16_224", 100)
