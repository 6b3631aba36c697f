"""What the board calls a protocol, and a way to train: rows of one protocol share a ranking."""

from lowbit.transfer.recipe.recipe_fields import RecipeFields

_LAMBDAS = (1e-3, 1e-4)  # of CoQuant's networks, its Table 2


def protocol_label(recipe: RecipeFields) -> str:
    """Return the protocol's name with all that makes it another protocol."""
    adaptive = [] if recipe.adaptive is None else [recipe.adaptive.method, *_sharing(recipe)]
    return "-".join([recipe.protocol, *adaptive, *_settings(recipe)])


def adaptive_facts(recipe: RecipeFields) -> dict[str, str]:
    """Return what the parts of the label of an adaptive protocol are; empty for other protocols.

    `adaptive_reference` is the label of the networks trained at one bit-width each, in every other
    respect alike, that Delta_B is relative to.
    """
    if recipe.adaptive is None:
        return {}
    return {
        "adaptive_method": recipe.adaptive.method,
        "adaptive_variant": "-".join([*_sharing(recipe), *_settings(recipe)]),
        "adaptive_reference": "-".join([recipe.protocol, "individual", *_settings(recipe)]),
    }


def _settings(recipe: RecipeFields) -> list[str]:
    """Name what networks at one bit-width each and at several together may both be trained with."""
    parts = []
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
    return parts


def training_label(recipe: RecipeFields) -> str:
    """Return how a quantization-aware training trains, which is what is compared; else "-".

    The quantizer is the other half of it: see `lowbit.benchmark.results.comparability`.
    """
    return "-".join([recipe.optimizer, *_scheduling(recipe)]) if recipe.protocol == "qat" else "-"


def _sharing(recipe: RecipeFields) -> list[str]:
    """Name B and lambda where they are not the usual; one bit-width alone has neither."""
    section = recipe.adaptive
    if section.method == "individual":
        return []
    usual = section.bits == type(section).model_fields["bits"].default
    parts = [] if usual else ["b" + "".join(map(str, section.bits))]
    if section.method == "coquant" and section.teacher_lambda not in _LAMBDAS:
        parts.append(f"lambda{section.teacher_lambda:g}")
    return parts


def _scheduling(recipe: RecipeFields) -> list[str]:
    """Name what differs from the paper's schedules of rates, and of transition rates."""
    if recipe.transition is None:
        decay = (
            recipe.schedule == "step" and recipe.gamma != type(recipe).model_fields["gamma"].default
        )
        return [f"step{recipe.gamma:g}"] if decay else []  # TR's Table S3
    section = recipe.transition
    usual = type(section).model_fields["lambda_"].default
    parts = [f"lambda{section.lambda_:g}"] if section.lambda_ != usual else []
    parts += [section.controller] if section.controller != "eq11" else []
    parts += [section.scope] if section.scope != "layer" else []
    parts += [f"{section.schedule}-target"] if section.schedule != "cosine" else []
    parts += [f"to{section.final_target:g}"] if section.final_target else []
    return parts + (["base-decay"] if section.decay != "adaptive" else [])


def _start(recipe: RecipeFields) -> list[str]:
    """Name the start of protocols that have several; a fine-tuning's is no part of its name."""
    if recipe.fp_start is not None:
        return ["fp-start"]
    if recipe.checkpoint_head:
        return ["checkpoint-head"]
    return ["warmup-fc"] if recipe.warmup_fc is not None and recipe.protocol != "finetune" else []
