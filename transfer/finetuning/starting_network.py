"""Full-precision starting network of a job's quantized trainings.

Its classifier is random, a linear fit's, the checkpoint's, or learned with the backbone in a
full-precision training (`fp_start`). That training is done once for all jobs with a common
`cache_dir` and the same facts: its folder there is named by the hash of those facts, and other jobs
wait while one trains it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowbit.common.atomic_file import remove_unfinished
from lowbit.common.file_lock import exclusive_lock
from lowbit.data import Images
from lowbit.quant import FP
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import seeded, stream
from lowbit.transfer.features.extract import extract
from lowbit.transfer.features.feature_cache import state_sha256
from lowbit.transfer.features.views import center
from lowbit.transfer.finetuning.epoch_log import Accuracies
from lowbit.transfer.finetuning.objectives import CrossEntropy
from lowbit.transfer.finetuning.training import Network, Training
from lowbit.transfer.probes.checkpoint_head import stored_classifier
from lowbit.transfer.probes.sgd_probe import fit_linear, initial_classifier

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe

VERSION = 1  # of a start; raised when the same facts yield different weights
STARTS = "starts"  # in the shared folder
PART = "start"  # of a job without a shared folder

# Other recipe fields that determine a start.
_DECISIVE = (
    "dataset",
    "train_on",
    "image_size",
    "augmentation",
    "batch_size",
    "momentum",
    "gamma",
    "amp",
)
_PRACTICAL = ("checkpoint", "data_root", "device", "num_workers", "checkpoint_every")


@dataclass(frozen=True)
class Start:
    """A full-precision network on its device, and its origin as reported in results."""

    network: Network
    details: dict[str, Any]


def starting_network(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
    val: Images | None = None,
) -> Start:
    """Return the network that the recipe's `fp_start`, `warmup_fc` or `checkpoint_head` describes.

    Args:
        backbone: full precision; becomes part of the network and may be trained.
        val: images whose accuracy a full-precision training logs.

    Raises:
        CheckpointError: the checkpoint has no classifier for the data set's classes.
    """
    backbone.to(device)
    details: dict[str, Any] = {"kind": "random-classifier"}
    if recipe.fp_start is not None:
        network, loss = _trained(
            backbone, train, recipe=recipe, workspace=workspace, device=device, val=val
        )
        details = {"kind": "fp-start", "final_loss": loss}
    else:
        if recipe.checkpoint_head:
            details = {"kind": "checkpoint-head"}
            classifier = stored_classifier(
                recipe.checkpoint,
                num_features=backbone.num_features,
                num_classes=len(train.classes),
            )
        else:
            classifier = _random(backbone, train, recipe.seed)
        network = Network(backbone, *classifier).to(device)
        if recipe.warmup_fc is not None:
            details = {"kind": "warmup-fc"}
            _warm_up(network, train, recipe=recipe, workspace=workspace.part(PART))
    return Start(network.eval(), {**details, "state_sha256": state_sha256(network)})


def linear_classifier(
    backbone: nn.Module,
    train: Images,
    initial: tuple[Tensor, Tensor],
    *,
    recipe: "Recipe",
    workspace: Workspace,
    state: dict[str, Any] | None,
) -> tuple[Tensor, Tensor]:
    """Return the linear protocol's full-precision classifier, weight (C, D) and bias (C,).

    For `workspace` and `state` see `fit_linear`.
    """
    backbone.eval()
    features = extract(backbone, train, FP, view=center(recipe), recipe=recipe)
    weight, bias = fit_linear(
        [features[None]],
        train.labels,
        initial,
        epochs=recipe.warmup_fc.epochs,
        batch_size=recipe.batch_size,
        learning_rates=lambda epoch: [recipe.warmup_fc.learning_rate(epoch)],
        momentum=recipe.momentum,
        weight_decay=0.0,
        generator=stream(recipe.seed, "warm-up order"),
        device=features.device,
        workspace=workspace,
        state=state,
    )
    return weight[0, 0], bias[0, 0]


def _random(backbone: nn.Module, train: Images, seed: int) -> tuple[Tensor, Tensor]:
    return initial_classifier(
        backbone.num_features, len(train.classes), generator=stream(seed, "classifier")
    )


def _warm_up(network: Network, train: Images, *, recipe: "Recipe", workspace: Workspace) -> None:
    """Replace the classifier by the linear fit's; it is saved, so that a resumed job uses the same."""
    state = workspace.resume()
    if state is None or "fit" in state:  # not begun, or stopped on its way
        initial = (network.fc.weight.detach(), network.fc.bias.detach())
        weight, bias = linear_classifier(
            network.backbone, train, initial, recipe=recipe, workspace=workspace, state=state
        )
        state = {"weight": weight, "bias": bias}
        workspace.save(**state)
    with torch.no_grad():
        network.fc.weight.copy_(state["weight"])
        network.fc.bias.copy_(state["bias"])


def _trained(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
    val: Images | None,
) -> tuple[Network, float]:
    """Train backbone and classifier in full precision, or load another job's result."""
    decisive = recipe.model_dump(mode="json", include=set(_DECISIVE))
    decisive |= recipe.fp_start.model_dump(mode="json")
    practical = recipe.model_dump(mode="json", include=set(_PRACTICAL))
    own = type(recipe)(protocol="finetune", **decisive, **practical)
    if recipe.cache_dir is None:
        place = workspace.part(PART)
    else:
        facts = {
            "version": VERSION,
            "training": decisive,
            "backbone_sha256": state_sha256(backbone),
            "split_sha256": train.split_sha256,
        }
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        place = Workspace(Path(recipe.cache_dir) / STARTS / name, key=facts)
        place.folder.mkdir(parents=True, exist_ok=True)
    # A separate seed: a job draws the same numbers whether it trains the start or loads it.
    with exclusive_lock(place.folder / "lock", str(place.folder)), seeded(own.seed, device):
        remove_unfinished(place.folder)  # of a job that was killed
        network = Network(backbone, *_random(backbone, train, own.seed)).to(device)
        objective = CrossEntropy()
        training = Training(
            network,
            train,
            recipe=own,
            device=device,
            objective=objective,
            watch=Accuracies(network, objective.tally, val, recipe=recipe),
            what="full-precision start",
        )
        return network, training.run(place, place.resume())
