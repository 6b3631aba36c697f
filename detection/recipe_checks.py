"""Refuse contradictory recipes before anything is trained."""

from lowbit.detection.datasets.digit_scenes import Layout
from lowbit.detection.recipe_fields import RecipeFields
from lowbit.detection.solver import TRANSITION, check_milestones
from lowbit.quant import FP

# Fields that a recipe with a Detectron2 configuration may set, besides its cosmetic ones.
_WITH_CONFIG = {"config", "opts", "checkpoint", "detector", "architecture", "seed"}
_NOT_YOLOV4 = (
    "extra_levels",
    "head_convs",
    "box_head_channels",
    "regions_per_image",
    "anchor_scales",
    "aspect_ratios",
)


def check_recipe(recipe: RecipeFields) -> None:
    """Refuse fields that contradict each other.

    Raises:
        ValueError: two fields contradict; the message names them and says what to do.
    """
    if recipe.config is not None:
        check_config(recipe)
        return
    if recipe.opts:
        raise ValueError(
            "opts override a Detectron2 configuration, but the recipe names none; nothing was "
            "trained. Give it as config FILE, or change the recipe's own keys."
        )
    if recipe.num_gpus > 1:
        raise ValueError(
            f"num_gpus is {recipe.num_gpus}, but a recipe trains in one process; nothing was trained. "
            "Leave it out, or name a Detectron2 configuration: config FILE."
        )
    check_method(recipe)
    check_training(recipe)
    check_yolov4(recipe)
    if recipe.voc_base is not None and not recipe.dataset.startswith("voc:"):
        raise ValueError(
            f"voc_base is {recipe.voc_base}, which only voc:NAME has, but the dataset is "
            f"{recipe.dataset}; nothing was trained. Leave it out."
        )
    if recipe.train_images is not None and recipe.calibration_images > recipe.train_images:
        raise ValueError(
            f"calibration_images is {recipe.calibration_images}, but there are only "
            f"{recipe.train_images} training images; nothing was trained. Use fewer."
        )
    if recipe.norm == "GN" and recipe.fpn_channels % 32:
        raise ValueError(
            f"GN has 32 groups, which fpn_channels {recipe.fpn_channels} cannot be divided into; "
            "nothing was trained. Use a multiple of 32, or norm none."
        )
    if recipe.flip and recipe.dataset == "digit-scenes":
        raise ValueError(
            "flip mirrors images, and a mirrored digit is not a digit; nothing was trained. Leave "
            "flip out for digit-scenes."
        )
    Layout(recipe.image_size, recipe.digits_per_scene, recipe.digit_size)  # raises if impossible


def check_config(recipe: RecipeFields) -> None:
    filled = {"train_images", "test_images"}  # for scenes, filled in by the recipe
    others = sorted(
        name
        for name, field in type(recipe).model_fields.items()
        if name not in recipe.cosmetic | _WITH_CONFIG | filled
        and getattr(recipe, name) != field.default
    )
    if others:
        raise ValueError(
            f"the recipe names a Detectron2 configuration and sets {', '.join(others)}, which it "
            "would not read; nothing was trained. Change the configuration's own keys by opts: "
            "[KEY, VALUE, ...]."
        )
    if len(recipe.opts) % 2:
        raise ValueError(
            f"opts has {len(recipe.opts)} entries; nothing was trained. Give pairs: KEY, VALUE."
        )


def check_yolov4(recipe: RecipeFields) -> None:
    if recipe.meta_architecture != "yolov4":
        for key, is_set in (
            ("yolov4", recipe.yolov4 is not None),
            ("norm BN", recipe.norm == "BN"),
        ):
            if is_set:
                raise ValueError(
                    f"{key} is set, which only YOLOv4 has, but meta_architecture is "
                    f"{recipe.meta_architecture}; nothing was trained. Leave it out, or set "
                    "meta_architecture yolov4."
                )
        return
    fields = type(recipe).model_fields
    idle = [key for key in _NOT_YOLOV4 if getattr(recipe, key) != fields[key].default]
    if idle:
        raise ValueError(
            f"{', '.join(idle)} would have no effect on YOLOv4; nothing was trained. Leave them out: its "
            "head has one shape, and its anchors are in the section yolov4."
        )
    if len(recipe.features) != 3:
        raise ValueError(
            f"features lists {len(recipe.features)} stages, and YOLOv4 has three levels; nothing was "
            "trained. Name three consecutive stages, such as [res3, res4, res5]."
        )
    if recipe.yolov4_settings.mosaic and not recipe.train_sizes:
        raise ValueError(
            "a mosaic has a side, but train_sizes is empty; nothing was trained. Set train_sizes to its "
            "side, such as [416], or yolov4: {mosaic: 0}."
        )


def check_method(recipe: RecipeFields) -> None:
    if recipe.random_backbone and (recipe.method != "fp" or recipe.checkpoint):
        raise ValueError(
            "random_backbone starts method fp without a checkpoint; nothing was trained. Leave out "
            "random_backbone, or the checkpoint, or use method fp."
        )
    if recipe.method == "ptq":
        if recipe.precision != FP or not recipe.precisions:
            raise ValueError(
                "method 'ptq' scores one detector at several precisions; nothing was scored. List "
                "them, precisions [FP, 8w8a, 4w4a], and leave precision out."
            )
        return
    if recipe.precisions:
        raise ValueError(
            f"method {recipe.method!r} trains at one precision, yet precisions lists "
            f"{', '.join(map(str, recipe.precisions))}; nothing was trained. Give precision, or use ptq."
        )
    if (recipe.method == "fp") != (recipe.precision == FP):
        raise ValueError(
            f"method {recipe.method!r} at precision {recipe.precision} makes no sense; nothing was "
            "trained. Use fp at FP, and lsq or sgdt at a precision such as 4w4a."
        )
    if recipe.method == "fp" and recipe.policy is not None:
        raise ValueError(
            "method 'fp' quantizes nothing, yet a policy is given; nothing was trained. "
            "Leave the policy out, or use method lsq or sgdt."
        )


def check_training(recipe: RecipeFields) -> None:
    if recipe.lr_end > recipe.lr or (recipe.lr_end and recipe.lr_schedule != "cosine"):
        raise ValueError(
            f"lr_end is {recipe.lr_end}, lr {recipe.lr} and lr_schedule {recipe.lr_schedule}; nothing was "
            "trained. Only a cosine has an end, and it is no larger than lr: correct it or leave it out."
        )
    check_milestones("lr_milestones", recipe.lr_schedule, recipe.lr_milestones, recipe.iterations)
    check_milestones(
        "target_milestones", recipe.target_schedule, recipe.target_milestones, recipe.iterations
    )
    if max(recipe.evaluate_at, default=0) > recipe.iterations:
        raise ValueError(
            f"evaluate_at contains {max(recipe.evaluate_at)}, but there are {recipe.iterations} "
            "iterations; nothing was trained. Leave out iterations after the end."
        )
    scheduled = recipe.solver.optimizer in TRANSITION
    if recipe.method == "sgdt" and not scheduled:
        raise ValueError(
            f"method 'sgdt' is transition-rate scheduling, but the optimizer is "
            f"{recipe.optimizer!r}; nothing was trained. Use method tr with it, or adamt or adamwt."
        )
    if recipe.oscillation is not None:
        if scheduled:
            raise ValueError(
                f"oscillation {recipe.oscillation.method} is a rival of transition-rate scheduling, and "
                f"the optimizer is {recipe.solver.optimizer}; nothing was trained. Use sgd or adamw."
            )
        if recipe.method in ("fp", "ptq"):
            raise ValueError(
                f"oscillation is about trained weights at few bits, and method {recipe.method!r} trains "
                "none; nothing was trained. Use method lsq, lsqplus or tr, or leave it out."
            )
    if not scheduled:
        if recipe.target_schedule != "cosine":
            raise ValueError(
                f"target_schedule is set, but {recipe.solver.optimizer} follows no target rate; "
                "nothing was trained. Use optimizer sgdt, adamt or adamwt, or leave it out."
            )
        return
    policy = recipe.quant_policy
    if policy is None or recipe.method == "ptq":
        raise ValueError(
            f"optimizer {recipe.optimizer!r} schedules the transitions of quantized weights, but "
            f"method {recipe.method!r} trains none; nothing was trained. Use sgd or adamw."
        )
    if policy.weight.build("weight").moves_with_weights:
        raise ValueError(
            f"policy {policy.name!r} computes each weight's scale from the weight itself, so its "
            "transition points move; nothing was trained. Use policy 'tr' with method sgdt."
        )
