"""Checks that refuse incompatible recipe fields before anything runs."""

from typing import get_args

from lowbit.quant import FP, get_policy
from lowbit.quant.precision import OFF
from lowbit.training.lr_schedules import check_milestones
from lowbit.transfer.recipe.protocol_registry import get_protocol
from lowbit.transfer.recipe.recipe_fields import RecipeFields
from lowbit.transfer.recipe.sections import PROBE_OPTIMIZERS, TOptimizer
from lowbit.transfer.scoring.class_ranking import METRIC


def check_training(recipe: RecipeFields) -> None:
    """Refuse rates and epochs that the protocol does not use, or that are missing."""
    protocol = get_protocol(recipe.protocol)
    for name in ("epochs", "lr", "weight_decay"):
        if (getattr(recipe, name) is None) == protocol.trains:
            what = "needs" if protocol.trains else "does not train with SGD and has no"
            raise ValueError(
                f"protocol {recipe.protocol!r} {what} {name}; nothing was scored. "
                f"{'Give' if protocol.trains else 'Remove'} {name}."
            )
    if METRIC in recipe.metrics and not protocol.ranks:
        raise ValueError(
            f"metric {METRIC} ranks samples by each class's probability, which protocol "
            f"{recipe.protocol!r} does not give; nothing was scored. Leave it out of metrics, or choose "
            "linear, finetune, qat or adaptive."
        )
    if protocol.trains:
        check_milestones(recipe.milestones, recipe.epochs)
    if recipe.chooses and recipe.train_on == "trainval":
        raise ValueError(
            f"{protocol.chooses} has several values, of which validation images choose one, and "
            "with train_on trainval there are none; nothing was scored. Give one value, or "
            "set train_on to train."
        )
    if len(recipe.rates) > 1 and protocol.chooses != "lr":
        raise ValueError(
            f"protocol {recipe.protocol!r} trains with one lr, not {len(recipe.rates)}; nothing "
            "was scored. Give one, or choose protocol linear."
        )


def check_quantized_training(recipe: RecipeFields) -> None:
    """Refuse incompatible starts, optimizers and sections."""
    starts = [n for n in ("warmup_fc", "fp_start", "checkpoint_head") if getattr(recipe, n)]
    if len(starts) > 1:
        raise ValueError(
            f"{' and '.join(starts)} are different starts; nothing was trained. Give one."
        )
    if recipe.protocol == "qat" and not starts and FP in recipe.precisions:
        raise ValueError(
            "precisions include FP, which is the start without further training, and the start's "
            "classifier is random; nothing was trained. Give fp_start, warmup_fc or "
            "checkpoint_head, or remove FP."
        )
    if recipe.nesterov and recipe.optimizer not in ("sgd", "sgdt"):
        raise ValueError(
            f"nesterov has no effect on optimizer {recipe.optimizer!r}; nothing was trained. "
            "Remove it (nadam is Adam with Nesterov's momentum)."
        )
    if recipe.protocol == "linear" and recipe.optimizer not in PROBE_OPTIMIZERS:
        raise ValueError(
            f"protocol 'linear' trains its classifiers side by side, by "
            f"{', '.join(PROBE_OPTIMIZERS)}, not by {recipe.optimizer!r}; nothing was scored. "
            "Choose one of them."
        )
    scheduled = recipe.optimizer in get_args(TOptimizer)
    if scheduled and "transition" not in get_protocol(recipe.protocol).options:
        raise ValueError(
            f"optimizer {recipe.optimizer!r} follows transitions between levels, which protocol "
            f"{recipe.protocol!r} does not train; nothing was trained. Choose "
            f"{recipe.optimizer[:-1]}, or protocol qat."
        )
    if scheduled != (recipe.transition is not None):
        what = "needs" if scheduled else "has no transition rates and no"
        raise ValueError(
            f"optimizer {recipe.optimizer!r} {what} section transition; nothing was trained. "
            f"{'Give transition' if scheduled else 'Remove it, or choose a t-variant (sgdt)'}."
        )
    if scheduled and recipe.oscillation is not None:
        raise ValueError(
            f"oscillation {recipe.oscillation.method} is a rival of transition-rate scheduling, and "
            f"optimizer {recipe.optimizer!r} schedules transitions; nothing was trained. Choose "
            f"{recipe.optimizer[:-1]}, or remove oscillation."
        )
    if recipe.transition is not None:
        decays = recipe.transition.decays(recipe.epochs)
        check_milestones(decays, recipe.epochs, name="transition.milestones")
        if recipe.transition.schedule == "step" and not decays:
            raise ValueError(
                f"transition.schedule step has no epoch of {recipe.epochs} to decay at; nothing "
                "was trained. Give transition.milestones, or another schedule."
            )
        real = [p for p in recipe.precisions if p != FP and p.weight_bits == OFF]
        if real:
            raise ValueError(
                f"weights have no levels at {real[0]}, and optimizer {recipe.optimizer!r} follows "
                f"transitions between them; nothing was trained. Choose {recipe.optimizer[:-1]}, "
                f"or remove {real[0]}."
            )
    if recipe.adaptive is not None and set(recipe.precisions) - set(recipe.adaptive.precisions):
        raise ValueError(
            f"precisions {', '.join(map(str, recipe.precisions))} are not all among those of "
            f"adaptive.bits and adaptive.zero_shot, {', '.join(map(str, recipe.adaptive.precisions))}; "
            "nothing was trained. Leave precisions out, or change the section."
        )
    if recipe.adaptive is not None and recipe.adaptive.method == "any-precision":
        policy, published = get_policy(recipe.policy), get_policy("any-precision")
        if (policy.weight.kind, policy.activation.kind) != (
            published.weight.kind,
            published.activation.kind,
        ):
            raise ValueError(
                f"adaptive.method any-precision needs its own quantizers, but policy {policy.name!r} "
                "has others; nothing was trained. Set policy to any-precision."
            )
