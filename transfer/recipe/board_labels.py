"""Board labels of protocols and training methods; rows with the same protocol share a ranking."""

from lowbit.transfer.recipe.recipe_fields import RecipeFields

_LAMBDAS = (1e-3, 1e-4)  # of CoQuant's networks, its Table 2


def protocol_label(recipe: RecipeFields) -> str:
    """Return the protocol's name with all settings that make it a separate protocol."""
    adaptive = [] if recipe.adaptive is None else [recipe.adaptive.method, *_sharing(recipe)]
    return "-".join([recipe.protocol, *adaptive, *_settings(recipe)])


def adaptive_facts(recipe: RecipeFields) -> dict[str, str]:
    """Return the parts of an adaptive protocol's label; empty for other protocols.

    `adaptive_reference` is the label of the networks trained at one bit-width each, otherwise
    identical, which Delta_B is relative to.
    """
    if recipe.adaptive is None:
        return {}
    return {
        "adaptive_method": recipe.adaptive.method,
        "adaptive_variant": "-".join([*_sharing(recipe), *_settings(recipe)]),
        "adaptive_reference": "-".join([recipe.protocol, "individual", *_settings(recipe)]),
    }


def _settings(recipe: RecipeFields) -> list[str]:
    """Name the settings shared by networks trained at one bit-width each and at several together."""
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
    """Return the method of a quantization-aware training, which is compared; else "-".

    The quantizer is the other half of it: see `lowbit.benchmark.results.comparability`.
    """
    if recipe.protocol != "qat":
        return "-"
    control = [recipe.oscillation.label] if recipe.oscillation is not None else []
    return "-".join([recipe.optimizer, *_scheduling(recipe), *control])


def _sharing(recipe: RecipeFields) -> list[str]:
    """Name B and lambda if they are not the defaults; a single bit-width has neither."""
    section = recipe.adaptive
    if section.method == "individual":
        return []
    usual = section.bits == type(section).model_fields["bits"].default
    parts = [] if usual else ["b" + "".join(map(str, section.bits))]
    if section.method == "coquant" and section.teacher_lambda not in _LAMBDAS:
        parts.append(f"lambda{section.teacher_lambda:g}")
    return parts


def _scheduling(recipe: RecipeFields) -> list[str]:
    """Name departures from the paper's schedules of learning rates and transition rates."""
    if recipe.transition is None:
        decay = (
            recipe.schedule == "step" and recipe.gamma != type(recipe).model_fields["gamma"].default
        )
        return [f"step{recipe.gamma:g}"] if decay else []  # TR's Table S3
    section = recipe.transition
    usual = type(section).model_fields["lambda_"].default
    parts = []
    if section.lambda_ != usual:
        natural = section.lambda_ == "natural"
        parts.append("natural" if natural else f"lambda{section.lambda_:g}")
    parts += [section.controller] if section.controller != "eq11" else []
    parts += [f"upto{section.highest:g}"] if section.highest is not None else []
    parts += [section.scope] if section.scope != "layer" else []
    parts += [f"{section.schedule}-target"] if section.schedule != "cosine" else []
    parts += [f"to{section.final_target:g}"] if section.final_target else []
    return parts + (["base-decay"] if section.decay != "adaptive" else [])


def _start(recipe: RecipeFields) -> list[str]:
    """Name the start in protocols with several; fine-tuning's is not part of its name."""
    if recipe.fp_start is not None:
        return ["fp-start"]
    if recipe.checkpoint_head:
        return ["checkpoint-head"]
    return ["warmup-fc"] if recipe.warmup_fc is not None and recipe.protocol != "finetune" else []
