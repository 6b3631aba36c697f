"""Protocol adaptive: one set of weights trained at several bit-widths, also scored at untrained ones."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowbit.common.compute_cost import Work
from lowbit.data import Images
from lowbit.quant import set_precision
from lowbit.quant.adaptive import (
    METHODS,
    JointStep,
    add_width,
    estimate_norms,
    make_adaptive,
    rescale_head,
)
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import minibatches, seeded, stream
from lowbit.transfer.features.calibration import calibrate_on
from lowbit.transfer.features.views import center, crop
from lowbit.transfer.finetuning.adaptive_training import (
    Joint,
    Watch,
    clip_optimizer,
    start_clips,
)
from lowbit.transfer.finetuning.nested_file import STORED, write_nested
from lowbit.transfer.finetuning.starting_network import starting_network
from lowbit.transfer.finetuning.training import Network, Training, total_steps
from lowbit.transfer.recipe.compute_cost import CostInputs, cost_of_start
from lowbit.transfer.recipe.protocol_registry import Fitted, protocol
from lowbit.transfer.scoring.predict import predicted_classes, predicted_logits

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe

NESTED = "nested.pth"  # one stored model for all bit-widths


def _cost(job: CostInputs) -> Work:
    section = job.recipe.adaptive
    epoch = job.learned + job.val * job.image
    networks = len(section.bits) if section.method == "individual" else 1
    scoring = len(job.recipe.precisions) * job.scored * job.image
    return Work(
        operations=len(section.bits) * job.recipe.epochs * epoch + scoring,
        disk=networks * job.weights + job.size.parameters,  # and the nested file, of 8-bit codes
        **cost_of_start(job),
    )


# Defaults: CoQuant's CIFAR-10, ResNet-18 (Table 2); the section `adaptive` is always present.
@protocol(
    cost=_cost,
    options=(
        "adaptive",
        "optimizer",
        "nesterov",
        "amp",
        "warmup_fc",
        "fp_start",
        "checkpoint_head",
    ),
    watches=True,
    ranks=True,
    epochs=350,
    batch_size=128,
    lr=0.1,
    weight_decay=1e-4,
    policy="coquant",
)
def adaptive(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
    val: Images | None,
) -> Fitted:
    """Train one network at every bit-width of B, and score it at those and at zero-shot ones.

    Each bit-width has its own norms and, in most methods, clips. A zero-shot bit-width has the next
    higher one's, with norm statistics estimated on training images. `individual` trains a network for
    each bit-width instead, as the baseline of the others; its zero-shot bit-widths use those of
    the next wider network.
    """
    section = recipe.adaptive
    start = starting_network(
        backbone, train, recipe=recipe, workspace=workspace, device=device, val=val
    )
    alone = section.method == "individual"
    groups = [(b,) for b in section.bits] if alone else [section.bits]
    details: dict[str, Any] = {
        "start": start.details,
        "adaptive": section.model_dump(mode="json"),
        "final_loss": {},
    }
    networks, artifacts = {}, {}
    for bits in groups:
        name = _name(bits[0]) if alone else section.method
        part = workspace.part(name)
        network = copy.deepcopy(start.network)
        details |= _prepare(network, train, bits, recipe, device)
        joint = _joint_step(network, bits, recipe)
        objective = Joint(joint, seed=recipe.seed)
        training = Training(
            network,
            train,
            recipe=recipe,
            device=device,
            objective=objective,
            optimizer=clip_optimizer(network, recipe, total_steps=total_steps(recipe, len(train))),
            watch=Watch(network, objective, val, recipe=recipe),
            what=f"network at {', '.join(map(_name, bits))}",
        )
        with seeded(recipe.seed, device):  # regardless of what was trained or resumed before
            details["final_loss"][name] = training.run(part, part.resume())
        network.eval().requires_grad_(False)
        networks |= dict.fromkeys(bits, network)
        artifacts[f"network {name}"] = str(part.state_path.relative_to(workspace.folder))
    details["swap_blocks"] = len(joint.units)
    details |= _estimate(networks, train, recipe, device)
    if not alone:
        network = networks[section.bits[0]]
        details["nested"] = write_nested(workspace.folder / NESTED, network, recipe=recipe)
        if details["nested"] == STORED:
            artifacts["nested"] = NESTED
    return Fitted(
        predict=partial(_predict, networks, recipe),
        logits=partial(_predict, networks, recipe, read=predicted_logits),
        networks=tuple(networks.values()),
        details=details,
        artifacts=artifacts,
    )


def _prepare(
    network: Network, train: Images, bits: tuple[int, ...], recipe: "Recipe", device: torch.device
) -> dict[str, Any]:
    """Quantize, calibrate and make adaptive; return the details for results."""
    network.quantize(recipe.policy)
    start_clips(network, recipe.adaptive.alpha)
    calibration = calibrate_on(network, train, recipe=recipe, device=device)
    make_adaptive(network, bits, shared_clips=METHODS[recipe.adaptive.method].shared_clips)
    rescaled = rescale_head(network)
    return {"calibration": calibration, "head_rescaled": rescaled}


def _joint_step(network: Network, bits: tuple[int, ...], recipe: "Recipe") -> JointStep:
    section = recipe.adaptive
    return JointStep(
        network,
        bits,
        section.method,
        swap_probability=section.swap_probability,
        swap_depth=section.swap_depth,
        teacher_lambda=section.teacher_lambda,
        confidence=section.confidence,
        distance=section.distance,
    )


def _estimate(
    networks: dict[int, Network], train: Images, recipe: "Recipe", device: torch.device
) -> dict[str, Any]:
    """Give the zero-shot bit-widths their networks and norms; return their sources."""
    section = recipe.adaptive
    trained = dict(networks)
    batches = 0
    for network in dict.fromkeys(trained.values()):
        own = [b for b in section.zero_shot if trained[_next_wider(b, section.bits)] is network]
        if not own:
            continue
        for b in own:
            add_width(network, b)
        batches = estimate_norms(network, _norm_batches(train, recipe, device), own)
        networks |= dict.fromkeys(own, network)
    return {
        "zero_shot": [_name(b) for b in section.zero_shot],
        "zero_shot_from": {
            _name(b): _name(_next_wider(b, section.bits)) for b in section.zero_shot
        },
        "norm_batches": batches,
    }


def _next_wider(b: int, bits: tuple[int, ...]) -> int:
    return min((wide for wide in bits if wide > b), default=max(bits))


def _name(b: int) -> str:
    return f"{b}w{b}a"


def _norm_batches(train: Images, recipe: "Recipe", device: torch.device) -> Iterator[Tensor]:
    """Yield at most `norm_batches` training batches, augmented as in training."""
    order = minibatches(
        len(train), recipe.batch_size, stream(recipe.seed, "norm order"), device=device
    )
    return train.batches(
        crop(recipe, k=0),
        batch_size=recipe.batch_size,
        device=device,
        places=order[: recipe.adaptive.norm_batches],
        workers=recipe.num_workers,
        generator=stream(recipe.seed, "norm views"),
    )


def _predict(
    networks: dict[int, Network],
    recipe: "Recipe",
    images: Images,
    read: Callable[..., Tensor] = predicted_classes,
) -> dict[str, Tensor]:
    found = {}
    for precision in recipe.precisions:
        network = networks[precision.weight_bits]
        set_precision(network, precision)
        found[str(precision)] = read(
            network,
            images,
            center(recipe),
            batch_size=recipe.eval_batch_size,
            workers=recipe.num_workers,
        )
    return found
