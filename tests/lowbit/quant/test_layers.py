"""After calibration a quantized network has all it needs, and repeating a pass changes nothing."""

import copy
import io
import warnings

import pytest
import timm
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from lowbit.quant import calibrate, list_policies, quantize, scales, set_precision
from lowbit.quant.adaptive import make_adaptive
from lowbit.quant.precision import Precision

ONE_BIT = ("interval-binary", "reactnet")
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Repeated(nn.Module):
    """Two convolutions whose activations are not kept but computed again, if asked."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.fc = nn.Linear(4, 3)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.stem(x)
        if self.reentrant is None:
            x = self.body(x)
        else:
            x = checkpoint(self.body, x, use_reentrant=self.reentrant)
        return self.fc(x.mean((2, 3)))


def precision_of(policy):
    return Precision(1, 1) if policy in ONE_BIT else Precision(4, 4)


def prepared(net, policy, images=IMAGES):
    """Quantized and calibrated, then switched: the order that leaves most to the first pass."""
    quantize(net, policy)
    calibrate(net, [images])
    set_precision(net, precision_of(policy))
    return net.train()


def trained(net, steps=2):
    """Outputs and gradients of some steps, and the state after them."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        y = net(IMAGES)
        y.square().sum().backward()
        seen += [y.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]
        optimizer.step()
    return [*seen, *net.state_dict().values()]


def assert_alike(found, wanted):
    assert len(found) == len(wanted)
    assert all(a.equal(b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("policy", list_policies())
def test_a_recomputed_pass_changes_nothing(policy, reentrant):
    plain = trained(prepared(Repeated(), policy))
    assert_alike(trained(prepared(Repeated(reentrant), policy)), plain)


@pytest.mark.parametrize("policy", ["cq", "tr", "lsqplus"])
def test_a_transformer_of_timm_is_checkpointed(policy):
    def transformer(checkpointed):
        torch.manual_seed(0)
        net = timm.models.vision_transformer.VisionTransformer(
            img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3
        )
        net.set_grad_checkpointing(checkpointed)
        return prepared(net, policy)

    assert_alike(trained(transformer(True)), trained(transformer(False)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_switchable_norms_are_updated_once_a_step(reentrant):
    def adaptive(repeated):
        net = Repeated(repeated)
        net.body.insert(2, nn.BatchNorm2d(4))
        quantize(net, "coquant")
        calibrate(net, [IMAGES])
        return make_adaptive(net, (8, 4)).train()

    assert_alike(trained(adaptive(reentrant)), trained(adaptive(None)))


def test_a_running_range_is_averaged_once_a_step():
    """By its definition: momentum 0.9 over the ranges of the batches."""
    net = prepared(Repeated(reentrant=False), {"base": "cq", "first": "target"})
    layer, ranges = net.body[1], []
    layer.register_forward_hook(lambda _, args, __: ranges.append(args[0].amax().item()))
    expected = layer.a_quant.q_max.item()
    for _ in range(3):
        ranges.clear()
        net(IMAGES).sum().backward()
        assert len(ranges) == 2  # the pass and its repetition
        expected = 0.9 * expected + 0.1 * ranges[0]
        assert layer.a_quant.q_max.item() == pytest.approx(expected, rel=1e-5)
        with torch.no_grad():
            net.stem.weight.mul_(1.5)


@pytest.mark.parametrize("policy", list_policies())
def test_no_pass_creates_or_moves_what_an_optimizer_has_to_know(policy):
    net = prepared(Repeated(), policy)
    learned = [p.detach().clone() for p in scales(net)]
    state = {name: t.clone() for name, t in net.state_dict().items()}
    net(IMAGES)
    assert_alike([p.detach() for p in scales(net)], learned)
    assert set(net.state_dict()) == set(state)
    moved = {n.rpartition(".")[2] for n, t in net.state_dict().items() if not t.equal(state[n])}
    assert moved <= {"q_min", "q_max"}  # of a running range


@pytest.mark.parametrize("policy", list_policies())
def test_a_calibrated_network_can_be_traced_and_saved(policy):
    net = prepared(Repeated(), policy).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(net, IMAGES)
        torch.jit.save(traced, file := io.BytesIO())
    other = torch.randn(2, 3, 16, 16)
    file.seek(0)
    assert torch.jit.load(file)(other).equal(net(other))


@pytest.mark.parametrize("policy", ["lsq", "ssql", "tr"])
def test_a_calibrated_network_can_be_recorded_as_a_graph(policy):
    """Kernels of ours that no graph can hold are not called, or the graph would lack its input."""
    net = prepared(Repeated(), policy).eval()
    other = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = net(other)
        assert make_fx(net)(IMAGES)(other).equal(expected)


@pytest.mark.parametrize("policy", ["lsq", "lsq-int8", "ssql"])
def test_torch_script_of_a_calibrated_network_can_become_onnx(policy):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    net = prepared(Repeated(), policy).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (IMAGES,), file := io.BytesIO(), dynamo=False)
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    other = torch.randn(IMAGES.shape)
    found = torch.from_numpy(session.run(None, {images.name: other.numpy()})[0])
    with torch.no_grad():
        expected = net(other)
    one_tie = 0.05 * expected.abs().max()  # the share of a value that rounded the other way
    torch.testing.assert_close(found, expected, rtol=0, atol=one_tie.item())


@pytest.mark.parametrize("policy", ["cq", "lsqplus", "tr"])
def test_a_calibrated_network_can_be_exported(policy):
    net = prepared(Repeated(), policy).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(copy.deepcopy(net), (IMAGES,)).module()
    other = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(exported(other), net(other))
