"""The training loop: what it hands an objective, each group's schedule, and what it keeps."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lowbit.quant import (
    Precision,
    calibrate,
    parameters_by_role,
    quantize,
    quantized_layers,
    set_precision,
)
from lowbit.training.job_state import Workspace
from lowbit.training.optimizers import OPTIMIZERS, T_VARIANTS
from lowbit.transfer import Recipe
from lowbit.transfer.finetuning.objectives import CrossEntropy
from lowbit.transfer.finetuning.recipe_optimizer import build_optimizer
from lowbit.transfer.finetuning.training import Network, Training, total_steps
from lowbit.transfer.recipe.sections import BASES

CPU = torch.device("cpu")


def _recipe(**fields):
    settings = {"protocol": "qat", "epochs": 3, "lr": 0.1, "batch_size": 64}
    return Recipe(checkpoint="b.pth", **{**settings, **fields})


@pytest.fixture
def network(tiny_net):
    """A network with learned weight and activation scales, at 4 bits."""
    network = Network(tiny_net(), torch.zeros(10, 16), torch.zeros(10))
    quantize(network, "lsq")
    torch.manual_seed(0)
    calibrate(network, [torch.randn(8, 3, 32, 32)])
    quantize(network, "lsq", Precision(4, 4))
    return network


@pytest.mark.parametrize("last", ["fp", 8])
def test_a_policy_s_rules_mean_the_backbone_s_names(tiny_net, last):
    policy = {"base": "lsq", "last": last, "rules": {"body.3": 6}}
    network = Network(tiny_net(), torch.zeros(10, 16), torch.zeros(10))
    network.quantize(policy)
    set_precision(network, Precision(4, 4))
    bits = {name: layer.w_quant.bits for name, layer in quantized_layers(network).items()}
    wanted = {"backbone.body.3": 6, "backbone.body.6": 4}
    assert bits == (wanted if last == "fp" else wanted | {"fc": 8})
    alone = quantize(tiny_net(), policy, Precision(4, 4))
    assert {f"backbone.{name}" for name in quantized_layers(alone)} == set(wanted)


def test_output_side_policies_leave_the_classifier(tiny_net):
    network = Network(tiny_net(), torch.zeros(10, 16), torch.zeros(10))
    network.quantize({"base": "ssql", "last": {"weight": "fp", "activation": 8}})
    assert type(network.fc) is torch.nn.Linear and quantized_layers(network)


class _InParts(CrossEntropy):
    """The same loss in two parts, noting where in the training it is."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __call__(self, network, x, y, *, step, total_steps, backward):
        self.seen.append((step, total_steps, torch.is_autocast_enabled("cpu")))
        total = 0
        for share in (0.25, 0.75):
            loss = share * F.cross_entropy(network(x), y)
            backward(loss)
            total = total + loss.detach()
        self.tally.add(network(x), y)
        return total


def test_an_objective_knows_the_step_and_may_go_backward_in_parts(tiny_net, few_digits, tmp_path):
    weights = []
    for objective in (CrossEntropy(), _InParts()):
        torch.manual_seed(0)
        network = Network(tiny_net(), torch.zeros(10, 16), torch.zeros(10))
        network.backbone.eval()  # two passes would move batch norm twice
        recipe = _recipe(epochs=2)
        training = Training(network, few_digits, recipe=recipe, device=CPU, objective=objective)
        folder = tmp_path / type(objective).__name__
        folder.mkdir()
        training.network.train = lambda mode=True: None
        training.run(Workspace(folder, key={}), None)
        weights.append(network.fc.weight)
    assert torch.allclose(*weights, atol=1e-6)
    assert objective.seen == [(step, 8, False) for step in range(8)]
    assert total_steps(recipe, len(few_digits)) == 8


def test_the_forward_pass_is_under_autocast_and_the_backward_pass_is_not(network, few_digits):
    objective = _InParts()
    training = Training(
        network, few_digits, recipe=_recipe(amp="bf16"), device=CPU, objective=objective
    )
    modes = []
    network.fc.register_forward_hook(lambda *_: modes.append(torch.is_autocast_enabled("cpu")))
    network.fc.weight.register_hook(lambda *_: modes.append(torch.is_autocast_enabled("cpu")))
    training._step(torch.randn(4, 3, 32, 32), torch.arange(4), 0)
    assert modes == [True, False, True, False, True]
    assert objective.seen == [(0, 12, True)]


def test_scales_have_their_own_rate_and_decay_and_follow_the_schedule(network, few_digits):
    roles = parameters_by_role(network)
    recipe = _recipe(optimizer="adamw", lr=0.01, schedule="linear", scale_weight_decay=0.5)
    optimizer = build_optimizer(network, recipe, total_steps=12)
    groups = {group["role"]: group for group in optimizer.param_groups}
    assert {role: len(group["params"]) for role, group in groups.items()} == {
        role: len(members) for role, members in roles.items()
    }
    assert groups["scale"]["lr"] == pytest.approx(0.01) and groups["latent"]["lr"] == 0.01
    assert groups["scale"]["weight_decay"] == 0.5 and groups["norm"]["weight_decay"] == 1e-2
    assert len(groups["scale"]["params"]) == 4  # two weights, two activations
    training = Training(network, few_digits, recipe=recipe, device=CPU, optimizer=optimizer)
    for epoch in range(2):
        training.epoch, training.losses = epoch, []
        training.train_epoch()
    assert groups["scale"]["lr"] == pytest.approx(0.01 * 2 / 3)
    assert groups["other"]["lr"] == pytest.approx(0.01 * 2 / 3)
    absolute = build_optimizer(network, _recipe(scale_lr=0.25), total_steps=12)
    assert {g["role"]: g["lr"] for g in absolute.param_groups}["scale"] == 0.25


@pytest.mark.parametrize("name", [*BASES, *T_VARIANTS])
def test_every_optimizer_trains_a_quantized_network(network, few_digits, name):
    recipe = _recipe(optimizer=name, epochs=2, lr=0.02, weight_decay=0.0)
    optimizer = build_optimizer(network, recipe, total_steps=8, weight_bits=4)
    base = OPTIMIZERS[name if name in BASES else name[:-1]]
    assert isinstance(optimizer, base) and (type(optimizer) is base) == (name in BASES)
    momentum = {g["momentum"] for g in optimizer.param_groups if "momentum" in g}
    assert momentum == ({0.9} if name.startswith(("sgd", "rmsprop", "lar")) else set())
    training = Training(network, few_digits, recipe=recipe, device=CPU, optimizer=optimizer)
    network.train()
    torch.nn.init.normal_(network.fc.weight)  # a zero one hands the backbone no gradient
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    training._step(torch.randn(16, 3, 32, 32), torch.arange(16) % 10, 0)
    # Whatever the loss does on a few images, a first step goes downhill in every element.
    for parameter_name, p in network.named_parameters():
        frozen = p.grad is None
        assert frozen == (base is not type(optimizer) and "w_quant" in parameter_name)
        if not frozen:
            along = p.grad * (p.detach() - before[parameter_name])
            assert (along <= 0).all() and along.sum() < 0
    for epoch in range(2):
        training.epoch, training.losses = epoch, []
        assert training.train_epoch()
        assert torch.stack(training.losses).isfinite().all()


class _Reads(TorchDispatchMode):
    """Counts what reads a number from the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device(network, few_digits):
    training = Training(network, few_digits, recipe=_recipe(), device=CPU)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
    training._step(x, y, 0)
    with _Reads() as reads:
        training._step(x, y, 1)
    assert reads.count == 0
    with _Reads() as reads:
        training.objective.tally.take()
    assert reads.count == 1


class _Counter:
    value = 0

    def __call__(self, *_):
        self.value += 1

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_what_is_kept_is_saved_and_restored_with_the_training(network, few_digits):
    def make():
        counter = _Counter()
        training = Training(
            network, few_digits, recipe=_recipe(), device=CPU, kept={"steps": counter}
        )
        training.optimizer.register_step_post_hook(counter)
        return counter, training

    counter, training = make()
    training.train_epoch()
    assert counter.value == 4
    state = training.state()
    other, again = make()
    again.restore(state)
    assert other.value == 4
