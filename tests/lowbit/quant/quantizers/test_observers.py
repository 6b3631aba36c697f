"""Ranges of calibrated activations, against NumPy-style closed forms and a brute-force search."""

import pytest
import torch

from lowbit.backbones import create_backbone
from lowbit.quant import LSQ, MinMax, calibrate, quantize, set_precision
from lowbit.quant.quantizers.observers import Observer
from lowbit.training import distributed
from tests.forked_ranks import in_processes


def observed(kind, *batches, **settings):
    observer = Observer(kind, **settings)
    for batch in batches:
        observer.update(batch)
    return observer.range()


def test_min_max_over_all_batches():
    low, high = observed("minmax", torch.tensor([0.0, 3.0]), torch.tensor([-1.0, 2.0]))
    assert (low.item(), high.item()) == (-1.0, 3.0)


def test_moving_average():
    low, high = observed(
        "moving_average", torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 2.0]), momentum=0.75
    )
    assert (low.item(), high.item()) == (-0.25, 1.25)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile_of_positive_data_cuts_above_only(percentile):
    batches = [torch.randn(50_000).abs() * scale for scale in (1.0, 0.5, 2.0)]
    low, high = observed("percentile", *batches, percentile=percentile)
    expected = torch.quantile(torch.cat(batches)[::3].double(), percentile / 100)
    assert low.item() == min(b.min() for b in batches)
    assert high.item() == pytest.approx(expected.item(), rel=0.03)


def test_percentile_of_signed_data_cuts_both_sides():
    x = torch.randn(100_000)
    low, high = observed("percentile", x, percentile=98.0)
    assert low.item() == pytest.approx(torch.quantile(x, 0.01).item(), abs=0.03)
    assert high.item() == pytest.approx(torch.quantile(x, 0.99).item(), abs=0.03)


def test_mse_is_the_best_of_the_shrunken_ranges():
    x = torch.randn(20_000).abs()
    x[0] = 12.0  # an outlier, which a few bits had better clip
    for bits in (2, 3, 4, 8):
        errors = []
        for share in range(1, 101):
            q = MinMax(bits=bits)
            q.init_from(torch.tensor([0.0, 12.0 * share / 100]))
            errors.append((q(x) - x).square().mean().item())
        q = MinMax(bits=bits, observer="mse")
        q.init_from(x)
        assert (q(x) - x).square().mean().item() <= min(errors) * 1.02
    ranges = [float(r) for r in q.q_max[2:9]]
    assert ranges == sorted(ranges)  # fewer bits, more clipping


def test_mse_follows_the_bits_without_a_second_calibration():
    x = torch.randn(5000).abs()
    q = MinMax(bits=8, observer="mse")
    q.init_from(x)
    wide = q.scale.item() * 255
    q.bits = 2
    assert q.scale.item() * 3 < wide
    other = MinMax(bits=2, observer="mse")
    other.load_state_dict(q.state_dict())
    assert torch.equal(other.eval()(x), q.eval()(x))


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "mse"])
def test_every_observer_calibrates_a_network(observer):
    images = torch.rand(4, 3, 32, 32)
    net = create_backbone("resnet10_slim").eval()
    full = net(images)
    policy = {
        "base": "ssql",
        "activation": {
            "kind": "MinMax",
            "options": {"scheme": "affine", "range": "observed", "observer": observer},
        },
    }
    quantize(net, policy)
    calibrate(net, [images[:2], images[2:]])
    set_precision(net, "8w8a")
    assert (net(images) - full).norm() < 0.1 * full.norm()


@pytest.mark.parametrize("policy", ["ssql", "lsq", "tr", "cq"])
def test_calibrating_on_nan_is_refused(policy):
    images = torch.rand(2, 3, 32, 32)
    images[0, 0, 0, 0] = float("nan")
    net = quantize(create_backbone("resnet10_slim"), policy)
    with pytest.raises(FloatingPointError, match="NaN or infinity entered"):
        calibrate(net, [images])


def test_options_are_checked():
    with pytest.raises(ValueError, match="observer 'minmux'"):
        MinMax(observer="minmux")
    with pytest.raises(ValueError, match="is too small"):
        MinMax(observer="percentile", percentile=0.999)


def _calibrate_on_a_rank():
    rank = distributed.rank()
    x = torch.linspace(-1 - rank, 3 + 2 * rank, 1000)
    found = {}
    for observer in ("minmax", "percentile", "mse"):
        q = MinMax(bits=4, observer=observer)
        q.init_from(x)
        found[observer] = q.scale.item()
    q = LSQ(bits=4)
    q.init_from(x)
    found["LSQ"] = q.scale.item()
    return found


def test_ranks_agree(tmp_path):
    """A.13-5: the official code calibrates every rank on other images and never merges."""
    first, second = in_processes(_calibrate_on_a_rank, folder=tmp_path)
    assert first == second
    assert first["minmax"] == pytest.approx((5 + 2) / 15)  # of the union
    both = torch.cat([torch.linspace(-1, 3, 1000), torch.linspace(-2, 5, 1000)])
    assert first["LSQ"] == pytest.approx(2 * both.abs().mean().item() / 7**0.5, rel=1e-5)
