"""Every kind of tensor that torch can save is loaded as it is, or refused by name."""

import warnings

import pytest
import safetensors.torch
import torch

from lowbit.backbones import CheckpointError, load_backbone
from lowbit.backbones.checkpoints.read_file import read

NAME = "layer1.0.conv1.weight"


class Marked(torch.Tensor):
    """A tensor class of some library."""


def quantized(t):
    return torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)


def by_channel(t):
    scales = torch.ones(len(t), dtype=torch.float64)
    return torch.quantize_per_channel(
        t, scales, torch.zeros(len(t), dtype=torch.long), 0, torch.qint8
    )


TAKEN = {
    "float16": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "float64": lambda t: t.double(),
    "a parameter": lambda t: torch.nn.Parameter(t),
    "channels last": lambda t: t.to(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "a part of a larger one": lambda t: torch.stack([t, t + 1])[1] - 1,
}
REFUSED = {
    "complex64 numbers": lambda t: torch.complex(t, t),
    "complex128 numbers": lambda t: torch.complex(t, t).to(torch.complex128),
    "bool numbers": lambda t: t > 0,
    "int32 numbers": lambda t: t.int(),
    "int64 numbers": lambda t: t.long(),
    "uint8 numbers": lambda t: t.to(torch.uint8),
    "uint16 numbers": lambda t: t.to(torch.uint16),
    "float8_e4m3fn numbers": lambda t: t.to(torch.float8_e4m3fn),
    "float8_e5m2 numbers": lambda t: t.to(torch.float8_e5m2),
    "a sparse tensor": lambda t: t.to_sparse(),
    "a quantized tensor": quantized,
    "a quantized tensor ": by_channel,
    "a meta tensor": lambda t: t.to("meta"),
    "negated or conjugated": lambda t: torch.complex(t, -t).conj().imag,
}


def saved(slim, change, path, **options):
    state = slim.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state[NAME] = change(state[NAME])
        torch.save(state, path, **options)
    return state


@pytest.mark.parametrize("kind", TAKEN)
def test_taken(slim, tmp_path, kind):
    expected = saved(slim, TAKEN[kind], tmp_path / "x.pth")[NAME]
    net, report = load_backbone(tmp_path / "x.pth")
    assert torch.equal(net.state_dict()[NAME], expected.detach().float()) and report.share == 1


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(slim, tmp_path, kind):
    saved(slim, REFUSED[kind], tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match=rf"not weights: {NAME} \([^)]*{kind.strip()}"
    ) as caught:
        load_backbone(tmp_path / "x.pth")
    assert "nothing was loaded" in str(caught.value)
    net, report = load_backbone(tmp_path / "x.pth", "resnet10_slim", allow_partial=True)
    assert report.matched == report.total - 1 and set(report.unfit) == {NAME} and report.share < 1
    assert not torch.equal(net.state_dict()[NAME], slim.state_dict()[NAME])


@pytest.mark.parametrize("kind", ["complex64 numbers", "bool numbers", "int32 numbers"])
def test_refused_in_the_older_format_too(slim, tmp_path, kind):
    saved(slim, REFUSED[kind], tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=rf"not weights: {NAME} \({kind}\)"):
        load_backbone(tmp_path / "x.pth")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int32, torch.float8_e4m3fn])
def test_refused_in_safetensors_too(slim, tmp_path, dtype):
    state = dict(slim.state_dict())
    state[NAME] = state[NAME].to(dtype)
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=rf"not weights: {NAME} \(\w+ numbers\)"):
        load_backbone(tmp_path / "x.safetensors")


def test_counters_are_integers_and_those_outside_the_backbone_do_not_matter(slim, tmp_path):
    state = {f"encoder_q.{name}": tensor for name, tensor in slim.state_dict().items()}
    state |= {
        "queue_ptr": torch.zeros(1, dtype=torch.long),
        "mask": torch.zeros(2, dtype=torch.bool),
    }
    state |= {"spectrum": torch.zeros(2, dtype=torch.complex64), "far": torch.zeros(2).to("meta")}
    torch.save(state, tmp_path / "x.pth")
    net, report = load_backbone(tmp_path / "x.pth")
    assert report.share == 1 and int(net.bn1.num_batches_tracked) == 5


def test_a_tensor_of_another_library_is_named(slim, tmp_path):
    state = {**slim.state_dict(), NAME: slim.state_dict()[NAME].as_subclass(Marked)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"names [\w.]+Marked, .*no code in it was run"):
        load_backbone(tmp_path / "x.pth")


def test_views_of_one_storage_keep_their_values(tmp_path):
    base = torch.arange(24.0)
    views = {"a": base[2:8].reshape(2, 3), "b": base[::2], "c": base.reshape(4, 6).T, "d": base[3]}
    views["e"] = torch.tensor([7.0]).expand(5)
    for zipped in (True, False):
        torch.save(views, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        found = read(tmp_path / "x.pth").containers[""]
        assert all(torch.equal(found[name], tensor) for name, tensor in views.items())
