"""Training at several bit-widths: gradients, teachers, swapping and their limits (SPEC D.1-D.3, D.9)."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lowbit.backbones.networks.small_resnet import SmallResNet
from lowbit.quant import Precision, calibrate, quantize, quantized_layers, set_precision
from lowbit.quant.adaptive import (
    METHODS,
    JointStep,
    make_adaptive,
    model_distances,
    student_probabilities,
    swap_units,
)
from lowbit.quant.adaptive.joint import distillation
from lowbit.quant.adaptive.swapping import student_pass
from lowbit.quant.adaptive.teachers import CONFIDENCES, Choice

BITS = (8, 6, 4, 2)


def network(policy="coquant", bits=BITS, **options):
    torch.manual_seed(0)
    backbone = SmallResNet((1, 1), (8, 16), stem_stride=2, shortcut="conv")
    net = _Classified(backbone)
    quantize(net, policy)
    calibrate(net, [images()])
    return make_adaptive(net, bits, **options) if bits else net


class _Classified(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.fc = backbone, nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.backbone(x))


def images(n=12):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def labels(n=12):
    return torch.randint(5, (n,), generator=torch.Generator().manual_seed(2))


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def gradients(net):
    return {n: None if p.grad is None else p.grad.clone() for n, p in net.named_parameters()}


def statistics(net, key):
    """Running statistics of a bit-width; key None is the widest's."""
    middle = "" if key is None else f"at.{key}."
    return {
        name: tensor.clone()
        for name, tensor in net.named_buffers()
        if "running" in name and (f".{middle}running" in name if key else ".at." not in name)
    }


def _reference_joint(net, x, y, p, generator):
    """Alg. 1 with all graphs alive and one backward pass; teachers by Eq. 4, written out."""
    units, outputs, total = swap_units(net), {}, 0.0
    layers = [m for m in quantized_layers(net).values() if m.rule.weight == "target"]
    weights = {}
    for b in BITS:
        set_precision(net, Precision(b, b))
        weights[b] = [m.w_quant(m.weight).detach() for m in layers]
    teachers = []
    for b in BITS:
        higher = [t for t in BITS if t > b]
        if not higher:
            set_precision(net, Precision(b, b))
            outputs[b] = net(x)
            total = total + F.cross_entropy(outputs[b], y)
            continue
        scores = {}
        for t in higher:
            prob = outputs[t].detach().softmax(1)
            entropy = -(prob * prob.log()).sum(1).mean()
            far = sum((u - v).norm() for u, v in zip(weights[t], weights[b], strict=True))
            scores[t] = (entropy + 1e-3 * far).item()
        t = min(scores, key=scores.get)
        teachers.append(t)
        stays = torch.rand(len(units), generator=generator) < p
        swapped = [unit for unit, stay in zip(units, stays.tolist(), strict=True) if not stay]
        with student_pass(net, b, swapped=swapped, teacher=t):
            outputs[b] = net(x)
        q, log_b = outputs[t].detach().softmax(1), outputs[b].log_softmax(1)
        total = total + F.cross_entropy(outputs[b], y) + (q * (q.log() - log_b)).sum(1).mean()
    total.backward()
    return teachers, total


def test_gradients_of_a_backward_pass_a_bit_width_are_those_of_the_sum():
    net, twin = (network().double().train() for _ in range(2))
    x, y = images().double(), labels()
    step = JointStep(net, BITS, swap_probability=0.3, swap_depth="uniform")
    done = step(x, y, progress=0.0, generator=draws(5))
    teachers, total = _reference_joint(twin, x, y, 0.3, draws(5))
    assert done.teachers == [None, *teachers]
    torch.testing.assert_close(done.losses.sum(), total.detach(), rtol=1e-12, atol=0)
    found, wanted = gradients(net), gradients(twin)
    assert sum(g is not None for g in wanted.values()) > 40
    for name, g in wanted.items():
        assert (g is None) == (found[name] is None), name
        if g is not None:
            torch.testing.assert_close(found[name], g, rtol=1e-9, atol=1e-12, msg=name)
    for key in (None, "6", "4", "2"):
        a, b = statistics(net, key), statistics(twin, key)
        assert a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def test_one_graph_is_alive_at_a_time():
    net = network().train()
    alive = []
    net.register_forward_hook(lambda m, a, y: alive.append(y))
    step = JointStep(net, BITS, "adabits")

    def backward(loss):
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            alive[-1].sum().backward()  # its graph is gone before the next pass

    step(images(), labels(), progress=0, generator=draws(), backward=backward)
    assert len(alive) == 4


def test_one_bit_width_is_plain_training_bit_for_bit():
    adaptive, plain = network(bits=(8,)).train(), network(bits=None).train()
    set_precision(plain, "8w8a")
    step = JointStep(adaptive, (8,))
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1, momentum=0.9) for n in (adaptive, plain)]
    for k in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        done = step(images(), labels(), progress=k / 3, generator=draws(k))
        loss = F.cross_entropy(plain(images()), labels())
        loss.backward()
        assert done.losses[0] == loss
        for optimizer in optimizers:
            optimizer.step()
    assert all(a.equal(b) for a, b in zip(adaptive.parameters(), plain.parameters(), strict=True))
    state = adaptive.state_dict()
    assert all(state[name].equal(t) for name, t in plain.state_dict().items())


def test_p_of_one_swaps_nothing():
    step = JointStep(network().train(), BITS, swap_probability=1.0)
    assert step.units == []
    step = JointStep(network().train(), BITS, swap_probability=0.5, swap_depth="uniform")
    assert len(step.units) == 2
    assert step._draw(1.0, draws()) == []  # p has risen to 1
    with student_pass(step.model, 4), torch.no_grad():
        swapped = step.model.eval()(images())
    set_precision(step.model, "4w4a")
    assert step.model(images()).equal(swapped)


def test_p_of_zero_is_the_teacher_but_for_head_and_stem():
    net = network()
    with torch.no_grad():  # clips and norms that differ between bit-widths
        for name, p in net.named_parameters():
            if ".at." in name:
                p.mul_(1 + 0.3 * torch.rand(p.shape))
    stem = net.backbone.bn1.at["2"]  # the stem's norm is not part of a block
    stem.load_state_dict({n: getattr(net.backbone.bn1.at["6"], n) for n in stem.state_dict()})
    net.eval()
    with torch.no_grad():
        with student_pass(net, 2, swapped=swap_units(net), teacher=6):
            swapped = net(images())
        with student_pass(net, 6):
            taught = net(images())
        with student_pass(net, 2):
            own = net(images())
    assert swapped.equal(taught)
    assert not own.equal(taught)


def test_a_stem_that_follows_the_precision_is_swapped_too():
    free = {"base": "coquant", "first": {"weight": "target", "activation": "fp"}}
    assert len(swap_units(network(free))) == 1 + len(swap_units(network())) == 3


def test_the_blocks_of_timm_s_networks_are_found():
    import timm

    for name, blocks in (("resnet18", 8), ("mobilenetv2_100", 17), ("vit_tiny_patch16_224", 12)):
        net = quantize(timm.create_model(name), "coquant")
        units = swap_units(nn.Sequential(net))
        assert len(units) == blocks
        modules = [m for unit in units for m in unit.modules() if m is not unit]
        assert len(modules) == len(set(modules))


def test_norms_of_a_bit_width_change_in_its_own_passes_only():
    net = network().train()
    before = {key: statistics(net, key) for key in (None, "6", "4", "2")}
    with student_pass(net, 4, swapped=swap_units(net), teacher=6):
        net(images())
    after = {key: statistics(net, key) for key in before}
    for key in (None, "6", "2"):
        assert all(before[key][name].equal(after[key][name]) for name in before[key])
    moved = {n for n in before["4"] if not before["4"][n].equal(after["4"][n])}
    assert moved == {f"backbone.bn1.at.4.running_{kind}" for kind in ("mean", "var")}
    assert all(m.track_running_stats for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def test_p_l_is_linear_in_depth_and_rises_to_one():
    p = student_probabilities(0.6, units=5, progress=0.25)
    assert p.tolist() == pytest.approx([0.7, 0.775, 0.85, 0.925, 1.0])
    assert student_probabilities(0.6, units=5, progress=1.0).tolist() == pytest.approx([1.0] * 5)
    uniform = student_probabilities(0.6, units=2, progress=0.5, depth="uniform")
    assert uniform.tolist() == pytest.approx([0.8, 0.8])


def test_blocks_are_swapped_as_often_as_p_says():
    net = network().train()
    step = JointStep(net, BITS, swap_probability=0.7, swap_depth="uniform")
    generator = draws()
    drawn = [len(step._draw(0.0, generator)) for _ in range(1000)]
    assert sum(drawn) / 2000 == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_the_teacher_always_has_more_bits(confidence):
    for seed in range(4):
        net = network().train()
        with torch.no_grad():
            net.fc.weight.normal_(generator=draws(seed))
        step = JointStep(net, BITS, confidence=confidence, teacher_lambda=0.0)
        teachers = step(images(), labels(), progress=0.5, generator=draws(seed)).teachers
        assert teachers[0] is None
        assert all(t > b and t in BITS for t, b in zip(teachers[1:], BITS[1:], strict=True))


def test_lambda_weighs_distance_against_confidence():
    near = JointStep(network().train(), BITS, teacher_lambda=1e3)
    done = near(images(), labels(), progress=0, generator=draws())
    assert done.teachers == [None, 8, 6, 4]  # the nearest precision
    sure = JointStep(network().train(), BITS, teacher_lambda=0.0, swap_probability=1.0)
    done = sure(images(), labels(), progress=0, generator=draws())
    entropies = [CONFIDENCES["entropy"](y, labels()) for y in done.outputs]
    for place in (2, 3):
        best = torch.stack(entropies[:place]).argmin()
        assert done.teachers[place] == BITS[best]


def test_confidence_is_lowest_where_a_prediction_is_sure():
    sure, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.0, 0.0]])
    for measure in CONFIDENCES.values():
        assert measure(sure, torch.tensor([0])) < measure(unsure, torch.tensor([0]))
    flat = torch.zeros(3, 4)
    assert CONFIDENCES["entropy"](flat, None).item() == pytest.approx(
        torch.tensor(4.0).log().item()
    )
    assert CONFIDENCES["max-probability"](flat, None).item() == pytest.approx(0.75)


@pytest.mark.parametrize("scheme", ["modified", "centered", "stretched", "original"])
@pytest.mark.parametrize("kind", ["l2", "mean-squared"])
def test_distances_are_those_of_the_quantized_weights(scheme, kind):
    weight = {"kind": "DoReFa", "options": {"scheme": scheme}}
    net = network({"base": "coquant", "weight": weight})
    found = model_distances(net, BITS, kind=kind)
    layers = [m for m in quantized_layers(net).values() if m.rule.weight == "target"]
    for i, a in enumerate(BITS):
        for j, b in enumerate(BITS):
            total, count = 0.0, 0
            for layer in layers:
                values = []
                for bits in (a, b):
                    layer.w_quant.bits = bits
                    values.append(layer.w_quant(layer.weight).detach().double())
                square = (values[0] - values[1]).square().sum()
                total += square.sqrt() if kind == "l2" else square
                count += layer.weight.numel()
            wanted = total if kind == "l2" else total / count
            assert found[i, j].item() == pytest.approx(float(wanted), rel=1e-4, abs=1e-7)
    assert model_distances(net, BITS, kind="bits")[0].tolist() == [0, 2, 4, 6]


def test_measuring_distances_leaves_the_bits_as_they_were():
    net = network()
    set_precision(net, "4w4a")
    model_distances(net, BITS, kind="l2")
    assert {m.w_quant.bits for m in quantized_layers(net).values()} == {8, 4}


def test_distillation_is_zero_between_equals_and_gives_the_teacher_no_gradient():
    teacher = torch.randn(6, 5, requires_grad=True)
    student = teacher.detach().clone().requires_grad_()
    loss = distillation(student, teacher)
    assert loss.abs() < 1e-6
    loss = distillation(student * 2, teacher)
    loss.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    p, q = teacher.detach().softmax(1), (2 * student.detach()).softmax(1)
    assert loss.item() == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-4)


def test_methods_have_the_losses_of_their_papers():
    x, y = images(), labels()
    for name in ("adabits", "switchable-bn"):
        net = network(shared_clips=METHODS[name].shared_clips).train()
        done = JointStep(net, BITS, name)(x, y, progress=0, generator=draws())
        wanted = [F.cross_entropy(out, y) for out in done.outputs]
        assert done.teachers == [None] * 4
        torch.testing.assert_close(done.losses, torch.stack(wanted))
    net = network("any-precision").train()
    done = JointStep(net, BITS, "any-precision")(x, y, progress=0, generator=draws())
    assert done.teachers == [None, 8, 6, 4]
    wanted = [F.cross_entropy(done.outputs[0], y)]
    wanted += [
        F.kl_div(b.log_softmax(1), a.softmax(1), reduction="batchmean")
        for a, b in zip(done.outputs, done.outputs[1:], strict=False)
    ]
    torch.testing.assert_close(done.losses, torch.stack(wanted))


def test_learning_lowers_every_bit_width_s_loss():
    net = network().train()
    step = JointStep(net, BITS)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for k in range(25):
        optimizer.zero_grad()
        done = step(images(), labels(), progress=k / 25, generator=draws(k))
        losses.append(torch.stack([F.cross_entropy(out, labels()) for out in done.outputs]))
        optimizer.step()
    assert (losses[-1] < 0.5 * losses[0]).all()


def test_a_network_without_blocks_and_unknown_names_are_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    quantize(net, "coquant")
    calibrate(net, [images()])
    make_adaptive(net, BITS)
    with pytest.raises(ValueError, match=r"no residual block.*Set swap_probability to 1"):
        JointStep(net, BITS)
    assert JointStep(net, BITS, swap_probability=1).units == []
    for wrong in (
        {"method": "adabit"},
        {"confidence": "x"},
        {"distance": "y"},
        {"swap_depth": "z"},
    ):
        with pytest.raises(ValueError, match="is unknown; nothing was trained"):
            JointStep(net, BITS, **wrong)


def test_the_choice_is_the_smallest_score():
    assert Choice(torch.tensor([0.3, 0.1, 0.2])).get() == 1


def test_a_step_is_a_function_of_its_draws():
    found = []
    for seed in (3, 3, 4, 5, 6):
        net = network().train()
        step = JointStep(net, BITS, swap_probability=0.3, swap_depth="uniform")
        step(images(), labels(), progress=0.2, generator=draws(seed))
        found.append(net.backbone.layer2[0].conv1.weight.grad)
    assert found[0].equal(found[1])
    assert any(not found[0].equal(other) for other in found[2:])


class _Reads(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("method", "reads"), [("coquant", 2), ("adabits", 0), ("any-precision", 0)]
)
def test_only_a_choice_among_several_teachers_is_read_from_the_device(method, reads):
    step = JointStep(network().train(), BITS, method)
    with _Reads() as counter:
        step(images(), labels(), progress=0, generator=draws())
    assert counter.count == reads  # for 4 and 2 bits; 6 bits have one candidate
