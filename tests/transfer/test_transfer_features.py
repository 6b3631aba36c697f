"""Features of a frozen backbone: nothing moves, nothing depends on the chunks, weights have b bits."""

import pytest
import torch

from quant import Precision, calibrate, get_policy, quantize, quantized_layers, set_precision
from transfer.features import extract, extract_at
from transfer.views import Views


@pytest.fixture
def quantized(tiny_net, few_digits):
    net = quantize(tiny_net(), get_policy("ssql"))
    calibrate(net, [Views("digits", 32).center(few_digits.images[:64])])
    return net


def test_nothing_of_a_frozen_backbone_changes(quantized, few_digits):
    before = {k: v.clone() for k, v in quantized.state_dict().items()}
    extract_at(
        quantized,
        few_digits.images,
        make_view=lambda: Views("digits", 32).center,
        precisions=("FP", "4w4a"),
        batch_size=64,
    )
    after = quantized.state_dict()
    assert before.keys() == after.keys()
    assert all(before[k].equal(after[k]) for k in before)


def test_a_backbone_in_train_mode_is_not_frozen(quantized, few_digits):
    with pytest.raises(AssertionError, match="eval mode"):
        extract(quantized.train(), few_digits.images, Views("digits", 32).center, batch_size=8)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
def test_features_do_not_depend_on_the_chunks_and_each_image_is_seen_once(
    quantized, few_digits, batch_size
):
    view = Views("digits", 32).center
    images = few_digits.images[:50]
    seen = []

    def counting(batch):
        seen.append(len(batch))
        return view(batch)

    set_precision(quantized, Precision(4, 4))
    found = extract(quantized, images, counting, batch_size=batch_size)
    with torch.no_grad():
        wanted = quantized(view(images))
    assert sum(seen) == 50 and max(seen) <= batch_size
    assert torch.allclose(found, wanted, atol=1e-5)


def test_each_precision_gives_its_own_features_from_the_same_views(quantized, few_digits):
    generators = []

    def make_view():
        generators.append(torch.Generator().manual_seed(4))
        return lambda images: Views("digits", 32).augmented(images, generators[-1])

    precisions = ("FP", "3w3a", "FP")
    features = extract_at(
        quantized, few_digits.images, make_view=make_view, precisions=precisions, batch_size=64
    )
    assert features.shape == (3, 200, 16)
    assert features[0].equal(features[2])
    assert not torch.allclose(features[0], features[1], atol=1e-2)


@pytest.mark.parametrize("precision", ["8w8a", "5w5a", "4w4a", "3w3a", "2w4a"])
def test_a_weight_channel_has_at_most_2_to_the_b_values(quantized, precision):
    # SPEC A.14: the stem keeps 8 bits at every precision, all other layers have the target's.
    bits = Precision.parse(precision).weight_bits
    set_precision(quantized, Precision.parse(precision))
    layers = list(quantized_layers(quantized).values())
    counts = []
    for layer in layers:
        weight = layer.quantized_weight().detach().flatten(1)
        counts.append(max(len(channel.unique()) for channel in weight))
    assert len(layers) == 3
    assert counts[0] <= 2**8
    assert all(count <= 2**bits for count in counts[1:])
    if bits <= 4:  # few enough levels for 72 and 108 weights a channel to need most of them
        assert all(count > 2 ** (bits - 1) for count in counts[1:])
