"""One network at many bit-widths: what it has once a bit-width, zero-shot norms, and the stored model."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lowbit.backbones.networks.small_resnet import SmallResNet
from lowbit.quant import (
    QUANTIZERS,
    Precision,
    calibrate,
    get_policy,
    quantize,
    quantized_layers,
    scales,
    set_precision,
)
from lowbit.quant.adaptive import (
    add_width,
    estimate_norms,
    load_nested,
    make_adaptive,
    nested_state,
    rescale_head,
)

BITS = (8, 6, 4, 2)


class Classified(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = SmallResNet((1, 1), (8, 16), stem_stride=2, shortcut="conv")
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.backbone(x))


def images(seed=1):
    return torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def network(policy="coquant", bits=BITS, **options):
    net = Classified()
    quantize(net, policy)
    calibrate(net, [images()])
    return make_adaptive(net, bits, **options)


def shaken(net):
    """Give everything that exists once a bit-width, and the norms' statistics, other values."""
    for name, tensor in net.state_dict().items():
        switches = ".at." in name or "running" in name or ".bn" in name
        if switches and tensor.is_floating_point():
            tensor.mul_(0.7 + 0.6 * torch.rand(tensor.shape)).add_(0.05)
    return net


def test_base_names_stay_and_copies_are_added_children():
    plain = quantize(Classified(), "coquant").state_dict()
    found = network().state_dict()
    assert [name for name in found if ".at." not in name] == list(plain)
    added = {name for name in found if ".at." in name}
    norms = {f"backbone.bn1.at.{b}.{n}" for b in (6, 4, 2) for n in ("weight", "running_var")}
    clips = {f"backbone.layer1.0.conv1.a_quant.at.{b}.q_scale" for b in (6, 4, 2)}
    assert norms | clips <= added
    assert not any(
        "fc" in name or "conv1.at" in name for name in added
    )  # 8 bits at every precision


def test_set_precision_chooses_norms_and_clips():
    net = network()
    norm, clip = net.backbone.bn1, net.backbone.layer1[0].conv1.a_quant
    for b in BITS:
        set_precision(net, Precision(b, b))
        own = norm._parameters["weight"] if b == 8 else norm.at[str(b)].weight
        assert norm.weight is own
        assert clip.q_scale is (clip._parameters["q_scale"] if b == 8 else clip.at[str(b)].q_scale)
    set_precision(net, "FP")
    assert norm.weight is norm._parameters["weight"]
    set_precision(net, "3w3a")  # not trained: the next higher one's
    assert norm.weight is norm.at["4"].weight and clip.q_scale is clip.at["4"].q_scale
    set_precision(net, "8w2a")
    assert norm.weight is norm.at["2"].weight


def test_shared_clips_are_one_a_layer():
    net = network(shared_clips=True)
    assert not any("a_quant.at" in name for name in net.state_dict())
    assert "backbone.bn1.at.2.weight" in net.state_dict()


def test_a_bit_width_is_the_network_that_has_its_tensors_only():
    net = shaken(network()).eval()
    for b in BITS:
        alone = quantize(Classified(), "coquant")
        state = {n: t for n, t in net.state_dict().items() if ".at." not in n}
        for name, tensor in net.state_dict().items():
            if f".at.{b}." in name:
                state[name.replace(f"at.{b}.", "")] = tensor
        alone.load_state_dict(state)
        for model in (alone.eval(), net):
            set_precision(model, Precision(b, b))
        assert alone(images()).equal(net(images()))


def test_per_bit_scales_are_learned_with_the_others():
    net = network()
    found = {id(p) for p in scales(net)}
    clips = [p for name, p in net.named_parameters() if name.endswith("q_scale")]
    assert {id(p) for p in clips} == found and len(scales(net)) == len(found)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_stands_where_the_original_stands(again):
    net = shaken(network()).eval()
    set_precision(net, "4w4a")
    other = again(net)
    assert other(images()).equal(net(images()))
    set_precision(other, "2w2a")
    assert not other(images()).equal(net(images()))
    assert other.backbone.bn1.weight is other.backbone.bn1.at["2"].weight


def test_state_dict_restores_every_bit_width():
    net = shaken(network()).eval()
    other = network().eval()
    other.load_state_dict(net.state_dict())
    for b in BITS:
        for model in (net, other):
            set_precision(model, Precision(b, b))
        assert other(images()).equal(net(images()))


def test_timm_s_norm_with_an_activation_inside_switches():
    import timm

    net = quantize(timm.create_model("mobilenetv2_050", num_classes=3), "coquant")
    calibrate(net, [images()])
    make_adaptive(net, (8, 4)).eval()
    norm = net.blocks[0][0].bn1
    norm.at["4"].bias.data.add_(1.0)
    set_precision(net, "8w8a")
    high = norm(torch.zeros(1, norm.num_features, 2, 2))
    set_precision(net, "4w4a")
    assert (norm(torch.zeros(1, norm.num_features, 2, 2)) - high).abs().min() > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_adaptive(Classified(), BITS), r"not quantized.*Call lowbit.quant.quantize"),
        (lambda: make_adaptive(network(), BITS), "already adaptive"),
        (lambda: network(bits=()), "not a set of bit-widths"),
        (lambda: network(bits=(8, 8)), "Name at least one, each once"),
    ],
)
def test_what_cannot_be_adaptive_says_why(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Zero-shot bit-widths (SPEC D.6)


def _reference_norms(net, batches, b):
    """Mean and variance, in double precision, of all values that enter each norm."""
    inputs = {}

    def record(name):
        def hook(module, args):
            inputs.setdefault(name, []).append(args[0].double().transpose(0, 1).flatten(1))

        return hook

    twin = copy.deepcopy(net).train()
    set_precision(twin, Precision(b, b))
    norms = {n: m for n, m in twin.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(record(name))
    with torch.no_grad():
        for batch in batches:
            twin(batch)
    values = {name: torch.cat(rows, dim=1) for name, rows in inputs.items()}  # (C, values)
    return {name: (x.mean(1), x.var(1, unbiased=False)) for name, x in values.items()}


def test_estimated_norms_are_those_of_all_values_together():
    """Batches of unequal size and of unlike images, as where classes are not shuffled."""
    net = shaken(network())
    batches = [images(seed)[: 12 - 2 * seed] * (seed + 1) + seed for seed in range(5)]
    for b in (7, 5):
        add_width(net, b)
    wanted = {b: _reference_norms(net, batches, b) for b in (7, 5)}
    assert estimate_norms(net, iter(batches), (7, 5)) == 5
    for b in (7, 5):
        set_precision(net, Precision(b, b))
        for name, (mean, var) in wanted[b].items():
            norm = net.get_submodule(name)
            assert int(norm.num_batches_tracked) == 5
            torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-4, atol=1e-5)


def _norm_of_images():
    """A network of which a norm reads the images themselves."""
    net = quantize(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.ReLU()), "coquant")
    calibrate(net, [images()[:, :2]])
    make_adaptive(net, (8, 4))
    add_width(net, 3)
    return net


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (20, 9, 2, 1)])
def test_norms_of_images_sorted_by_class_are_the_populations(sizes):
    """Four classes whose means lie 5 apart and whose values vary by 1: batches alone vary by 1."""
    net = _norm_of_images()
    draws = torch.Generator().manual_seed(0)
    batches = [5 * c + torch.randn(n, 2, 3, 3, generator=draws) for c, n in enumerate(sizes)]
    for together in (batches, [torch.cat(batches)[torch.randperm(sum(sizes), generator=draws)]]):
        estimate_norms(net, together, (3,))
        values = torch.cat(batches).double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(net[0].running_mean.double(), values.mean(1), rtol=1e-5, atol=0)
        expected = values.var(1, unbiased=False)
        torch.testing.assert_close(net[0].running_var.double(), expected, rtol=1e-5, atol=0)
        assert expected.min() > 10


def test_a_far_mean_costs_no_variance():
    """E[x^2] - E[x]^2 in single precision would leave nothing of a variance of 1 at a mean of 10,000."""
    net = _norm_of_images()
    draws = torch.Generator().manual_seed(0)
    batches = [1e4 + torch.randn(64, 2, 4, 4, generator=draws) for _ in range(4)]
    estimate_norms(net, batches, (3,))
    expected = torch.cat(batches).double().var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(net[0].running_var.double(), expected, rtol=1e-3, atol=0)


def test_norms_agree_with_fvcore():
    from fvcore.nn import update_bn_stats

    net = _norm_of_images()
    batches = [images(seed)[: 12 - seed, :2] + seed for seed in range(3)]
    estimate_norms(net, batches, (3,))
    theirs = nn.BatchNorm2d(2).train()
    update_bn_stats(theirs, batches, num_iters=3)
    torch.testing.assert_close(net[0].running_mean, theirs.running_mean)
    torch.testing.assert_close(net[0].running_var, theirs.running_var)


def test_without_a_batch_norms_keep_their_statistics():
    net = shaken(network())
    add_width(net, 3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match="statistics were not changed"):
        estimate_norms(net, [], [3])
    assert all(before[name].equal(tensor) for name, tensor in net.state_dict().items())
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def test_estimation_leaves_everything_else_alone():
    net = shaken(network()).eval()
    net.backbone.act1.train()
    add_width(net, 3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    estimate_norms(net, [images(2)], [3])
    after = net.state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and all(".at.3." in name and "weight" not in name for name in changed)
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert net.backbone.act1.training and not net.backbone.bn1.training
    assert all(p.grad is None for p in net.parameters())


def test_a_zero_shot_bit_width_starts_as_the_next_higher_one():
    net = shaken(network())
    add_width(net, 3)
    add_width(net, 3)  # once is enough
    add_width(net, 8)
    norm = net.backbone.bn1
    assert norm.at["3"].weight.equal(norm.at["4"].weight) and "8" not in norm.at
    wide = network(bits=(4, 2))
    add_width(wide, 8)
    set_precision(wide, "8w8a")
    assert wide.backbone.bn1.weight is wide.backbone.bn1.at["8"].weight


# One stored model


@pytest.mark.parametrize("scheme", ["modified", "centered", "stretched"])
def test_truncated_codes_are_every_lower_bit_network_bit_for_bit(scheme, tmp_path):
    options = {"kind": "DoReFa", "options": {"scheme": scheme}}
    policy = {"base": "coquant", "weight": options}
    net = shaken(network(policy))
    rescale_head(net)
    for b in (7, 5, 3):
        add_width(net, b)
    estimate_norms(net, [images(3)], (7, 5, 3))
    torch.save(nested_state(net, policy, BITS), tmp_path / "nested.pth")
    stored = torch.load(tmp_path / "nested.pth", weights_only=True)
    assert stored["bits"] == [8, 6, 4, 2] and stored["zero_shot"] == [7, 5, 3]
    loaded = load_nested(Classified(), stored)
    net.eval()
    pairs = list(
        zip(quantized_layers(net).values(), quantized_layers(loaded).values(), strict=True)
    )
    assert all(mine.weight.dtype == torch.uint8 for _, mine in pairs)
    for b in range(8, 1, -1):
        for model in (net, loaded):
            set_precision(model, Precision(b, b))
        for latent, mine in pairs:
            assert mine.w_quant.bits == latent.w_quant.bits
            assert mine.quantized_weight().equal(latent.quantized_weight())
        with torch.no_grad():
            assert loaded(images(4)).equal(net(images(4)))


def test_the_stored_model_is_the_codes_and_a_little():
    net = network()
    stored = nested_state(net, "coquant", BITS)["state"]
    for name, layer in quantized_layers(net).items():
        codes = stored[f"{name}.weight"]
        assert codes.dtype == torch.uint8 and codes.equal(layer.w_quant.codes(layer.weight))
    assert get_policy(nested_state(net, "coquant", BITS)["policy"]) == get_policy("coquant")


def test_the_network_itself_is_untouched_by_storing():
    net = shaken(network()).eval()
    wanted = net(images())
    nested_state(net, "coquant", BITS)
    assert net(images()).equal(wanted)


def test_shared_clips_and_a_wider_zero_shot_bit_width_are_stored():
    net = shaken(network(bits=(4, 2), shared_clips=True))
    add_width(net, 6)
    loaded = load_nested(Classified(), nested_state(net, "coquant", (4, 2)))
    net.eval()
    for b in (6, 4, 2):
        for model in (net, loaded):
            set_precision(model, Precision(b, b))
        assert loaded(images()).equal(net(images()))


def test_a_stored_model_has_no_more_bits_than_stored():
    loaded = load_nested(Classified(), nested_state(network(), "coquant", BITS))
    for precision in ("FP", "16w16a"):
        with pytest.raises(ValueError, match=r"stored with 8 bits.*Ask for 8 bits or fewer"):
            set_precision(loaded, precision)


def test_what_is_not_nested_is_not_stored():
    policy = {"base": "coquant", "weight": {"kind": "DoReFa"}}
    with pytest.raises(ValueError, match=r"nothing was stored\. Train with policy coquant"):
        nested_state(network(policy), policy, BITS)
    with pytest.raises(ValueError, match="has one bit-width; nothing was stored"):
        nested_state(quantize(Classified(), "coquant"), "coquant", BITS)
    with pytest.raises(ValueError, match="not a nested model"):
        load_nested(Classified(), {"format": 99})


# Classifier and Any-Precision's weights


def test_a_dorefa_classifier_is_rescaled_and_no_other():
    """SAT's constant rescaling, as AdaBits: w_q / (sqrt(classes) std(w_q)), at every bit-width."""
    net = network()
    plain = {}
    for bits in BITS:
        set_precision(net, Precision(bits, bits))
        plain[bits] = net.fc.quantized_weight()
    assert rescale_head(net)
    for bits in BITS:
        set_precision(net, Precision(bits, bits))
        values = plain[bits].detach().double()
        variance = (values - values.mean()).square().sum() / (values.numel() - 1)
        expected = values / (5 * variance).sqrt()
        torch.testing.assert_close(net.fc.quantized_weight().double(), expected, rtol=1e-5, atol=0)
        (gradient,) = torch.autograd.grad(net.fc.quantized_weight().sum(), net.fc.weight)
        (unscaled,) = torch.autograd.grad(plain[bits].sum(), net.fc.weight)
        factor = (5 * variance).rsqrt().float()
        torch.testing.assert_close(gradient, unscaled * factor)  # none through the deviation
    assert not rescale_head(network("lsq"))
    assert "fc.out_scale.q_scale" in net.state_dict()


@pytest.mark.parametrize("channels", [None, 6])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_scaled_dorefa_is_dorefa_times_the_mean_magnitude(bits, channels):
    w = torch.randn(6, 4, 3, 3, requires_grad=True)
    place = {"bits": bits, "role": "weight", "channels": channels, "ndim": 4}
    scaled, plain = (QUANTIZERS[k](**place) for k in ("ScaledDoReFa", "DoReFa"))
    magnitude = w.detach().abs().mean() if channels is None else w.detach().abs().mean((1, 2, 3))
    factor = 1.0 if bits == 1 else magnitude.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(scaled(w), plain(w) * factor)
    step, offset = scaled.grid(w)
    torch.testing.assert_close(scaled(w), scaled.codes(w) * step + offset, rtol=1e-5, atol=1e-6)
    (found,) = torch.autograd.grad(scaled(w).sum(), w)
    (wanted,) = torch.autograd.grad((plain(w) * factor).sum(), w)
    torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match="quantizes weights"):
        QUANTIZERS["ScaledDoReFa"](role="activation")
