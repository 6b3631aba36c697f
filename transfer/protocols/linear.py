"""Protocol linear: a linear classifier on features of the frozen, already quantized backbone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lowbit.common.compute_cost import LEARNING, Work
from lowbit.data import Images
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import stream
from lowbit.transfer.features.extract import frozen_features
from lowbit.transfer.finetuning.epoch_log import EpochLog
from lowbit.transfer.probes.choose_on_val import choose_on
from lowbit.transfer.probes.sgd_probe import Classifier, fit_linear, initial_classifier
from lowbit.transfer.recipe.compute_cost import CostInputs, cost_on_features
from lowbit.transfer.recipe.protocol_registry import Fitted, Parts, protocol

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


def _cost(job: CostInputs) -> Work:
    return cost_on_features(
        job, len(job.recipe.rates) * job.recipe.epochs * LEARNING * job.train * job.head
    )


@protocol(
    cost=_cost,
    options=("augment_views", "optimizer"),
    chooses="lr",
    ranks=True,
    epochs=100,
    lr=30.0,
    weight_decay=0.0,
)
def linear(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
    val: Images | None = None,
) -> Fitted:
    """Quantize and calibrate first, then train one classifier per precision (SSQL, SPEC A.8).

    The backbone is frozen: eval mode, no gradient, no change of statistics. Its features are computed
    once per precision, so that all epochs cost one forward pass of the training images; with
    `augment_views` = K, K passes over augmented views, of which epoch e trains on view e mod K.
    Of several values of `lr`, trained side by side, the best on `val` is kept at each precision.
    """
    state = workspace.resume()
    features = frozen_features(backbone, train, recipe=recipe, workspace=workspace, device=device)
    views = features.of_training(train)
    names = [
        str(p) if len(recipe.rates) == 1 else f"{p} lr {r:g}"
        for p in recipe.precisions
        for r in recipe.rates
    ]

    done = 0 if state is None else state["epoch"]
    log = EpochLog(workspace.folder, epochs=recipe.epochs, done=done)

    def on_epoch(epoch: int, lrs: Sequence[float], losses: Tensor) -> None:
        loss = dict(zip(names, losses.flatten().tolist(), strict=True))
        log.write(epoch, lr=lrs[0], loss=loss)

    weight, bias = fit_linear(
        views,
        train.labels,
        initial_classifier(
            views[0][0].shape[-1], len(train.classes), generator=stream(recipe.seed, "classifier")
        ),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rates=recipe.learning_rates,
        optimizer=recipe.optimizer,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        generator=stream(recipe.seed, "order"),
        device=device,
        on_epoch=on_epoch,
        workspace=workspace,
        state=state,
    )
    details = {
        "calibration": features.calibration,
        "augment_views": recipe.augment_views,
        "feature_bytes": sum(x.nbytes for view in views for x in view),
    }
    heads = {
        precision: list(zip(weight[place], bias[place], strict=True))
        for place, precision in enumerate(recipe.precisions)
    }
    kept, choice = choose_on(val, features, heads, setting="lr", values=recipe.rates)
    classifier = Classifier(features, kept)
    return Fitted(
        predict=classifier,
        logits=classifier.logits,
        networks=(backbone,),
        details={**details, **choice},
        parts=Parts(heads=kept, calibrated=backbone),
    )
