"""What the board calls a protocol, and a way to train: rows of one protocol share a ranking."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transfer.recipe import Recipe


def protocol_label(recipe: "Recipe") -> str:
    """Return the protocol's name with all that makes it another protocol."""
    parts = [recipe.protocol]
    if recipe.adaptive is not None:
        parts += _adaptive(recipe)
    if recipe.protocol != "qat" and recipe.optimizer != "sgd":
        parts.append(recipe.optimizer)
    parts += _start(recipe)
    if recipe.distillation is not None:
        parts.append("distilled")
    if recipe.amp is not None:
        parts.append(recipe.amp)
    if recipe.label_fraction is not None:
        parts.append(f"{100 * recipe.label_fraction:g}pct")
    if recipe.protocol == "knn":
        parts += [f"k{recipe.knn_k}", f"t{recipe.knn_temperature:g}"]
    if recipe.augment_views:
        parts.append(f"views{recipe.augment_views}")
    if len(recipe.rates) > 1:
        parts.append(f"best-of-{len(recipe.rates)}-lr")
    if recipe.calibration != "clean":
        parts.append(recipe.calibration)
    if recipe.train_on != "train":
        parts.append(recipe.train_on)
    return "-".join(parts)


def training_label(recipe: "Recipe") -> str:
    """Return how a quantization-aware training trains, which is what is compared; else "-".

    The quantizer is the other half of it: see `benchmark.comparability`.
    """
    return "-".join([recipe.optimizer, *_scheduling(recipe)]) if recipe.protocol == "qat" else "-"


def _adaptive(recipe: "Recipe") -> list[str]:
    """Name the method, and B where it is not the usual; a network of one bit-width has none."""
    section = recipe.adaptive
    usual = section.bits == type(section).model_fields["bits"].default
    if usual or section.method == "individual":
        return [section.method]
    return [section.method, "b" + "".join(map(str, section.bits))]


def _scheduling(recipe: "Recipe") -> list[str]:
    """Name what differs from the paper's transition-rate scheduling."""
    if recipe.transition is None:
        return []
    section = recipe.transition
    usual = type(section).model_fields["lambda_"].default
    parts = [f"lambda{section.lambda_:g}"] if section.lambda_ != usual else []
    parts += [section.controller] if section.controller != "eq11" else []
    parts += [section.scope] if section.scope != "layer" else []
    parts += [f"{section.schedule}-target"] if section.schedule != "cosine" else []
    return parts + (["base-decay"] if section.decay != "adaptive" else [])


def _start(recipe: "Recipe") -> list[str]:
    """Name the start of protocols that have several; a fine-tuning's is no part of its name."""
    if recipe.fp_start is not None:
        return ["fp-start"]
    if recipe.checkpoint_head:
        return ["checkpoint-head"]
    return ["warmup-fc"] if recipe.warmup_fc is not None and recipe.protocol != "finetune" else []
