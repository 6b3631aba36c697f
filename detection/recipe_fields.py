"""The fields of a detection recipe: everything that determines a job's result."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_serializer

from lowbit.backbones.precision_field import PrecisionField
from lowbit.common.input_files.strict_model import GrownModel, StrictModel
from lowbit.detection.datasets.digit_scenes import Layout
from lowbit.detection.solver import TRANSITION, Solver
from lowbit.detection.yolov4.settings import YOLOv4Settings
from lowbit.quant import FP, QuantPolicy, get_policy
from lowbit.training.oscillation_control import Oscillation

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

DEFAULT_POLICIES: dict[str, str | dict[str, Any]] = {
    **{name: name for name in ("lsq", "pact", "dorefa", "ewgs", "tr")},
    # stem and predictors as in the other policies; the quantizer's own paper has them at 8 bits
    "lsqplus": {"base": "lsqplus", "first": "fp", "last": "fp"},
    "sgdt": "tr",
    "ptq": "ssql",
}
_LEARNED = "interval"  # with a plain optimizer the scales of weights are learned too (TR, Sec. 5.1)


class Clipping(StrictModel):
    """How gradients are clipped."""

    type: Literal["value", "norm", "full_model"] = Field(
        "full_model", description="clip each number, each parameter's gradient, or all together"
    )
    value: Positive = Field(1.0, description="the bound")


class RecipeFields(GrownModel):
    """The settings of a detection job, and what follows from them; defaults are the demo's.

    Methods:
        fp: train the detector in full precision from a backbone `checkpoint`.
        lsq, lsqplus, pact, dorefa, ewgs, tr: quantize a trained `detector`, calibrate, and train it;
            the method names the quantizers, and `optimizer` sets how they are trained.
        sgdt: tr with SGDT.
        ptq: calibrate a trained `detector` and score it at each of `precisions`, without training.

    A recipe that names a `config` is a Detectron2 configuration as a job; see `lowbit.detection.with_detectron2.config_job`.
    """

    cosmetic: ClassVar[frozenset[str]] = frozenset(
        {
            "name",
            "data_root",
            "device",
            "num_gpus",
            "log_every",
            "checkpoint_every",
            "config",
            "opts",
        }
    )  # the content of `config` is in the job's identity

    later: ClassVar[frozenset[str]] = frozenset({"oscillation"})

    name: str = Field("detection", description="the job's name in logs")
    engine: Literal["auto", "detectron2", "torchvision"] = Field(
        "auto", description="auto: detectron2 if it is installed, else torchvision"
    )
    meta_architecture: Literal["retinanet", "faster_rcnn", "yolov4"] = Field(
        "retinanet", description="the detector; it has a feature pyramid"
    )
    method: Literal["fp", "lsq", "lsqplus", "pact", "dorefa", "ewgs", "tr", "sgdt", "ptq"] = Field(
        "fp", description="see above"
    )
    checkpoint: str | None = Field(None, description="backbone file; fp needs it")
    random_backbone: bool = Field(
        False, description="fp: start from random weights, without a checkpoint"
    )
    detector: str | None = Field(
        None, description="trained detector file; all methods except fp need it"
    )
    architecture: str | None = Field(
        None, description="backbone's name; null: as given in the file"
    )

    dataset: str = Field("digit-scenes", description="detection set")
    data_root: str | None = Field(None, description="folder of the image sets; null: $LOWBIT_DATA")
    voc_base: Literal[0, 1] | None = Field(
        None,
        description="voc:NAME: corners count from 1, inclusive, or from 0, borders; null: 1, and a corner of 0 is refused",
    )
    image_size: Count = Field(96, description="side of a scene, pixels")
    train_images: Count | None = Field(
        None, description="number of images; null: all, or 2000 of digit-scenes"
    )
    test_images: Count | None = Field(None, description="number; null: all, or 300 of digit-scenes")
    test_split: Literal["val", "test"] = Field("test", description="val: for choosing a recipe")
    scene_seed: int = Field(0, ge=0, description="seed of the scenes")
    digits_per_scene: tuple[int, int] = Field((2, 4), description="fewest and most")
    digit_size: tuple[int, int] = Field((16, 40), description="height of a digit, pixels")

    train_sizes: tuple[Count, ...] = Field(
        (), description="shorter sides of a training image, one drawn each time; empty: as it is"
    )
    test_size: Count | None = Field(None, description="shorter side in inference; null: as it is")
    max_size: Count = Field(1333, description="largest longer side of a resized image")
    flip: bool = Field(False, description="mirror half of the training images; not for digits")

    features: tuple[str, ...] = Field(
        ("res4", "res5"), min_length=1, description="stages the pyramid is built on"
    )
    backbone_norm: Literal["BN", "SyncBN", "FrozenBN"] = Field(
        "BN", description="the backbone's norm; SyncBN: on several GPUs; FrozenBN: not trained"
    )
    freeze_at: int = Field(0, ge=0, le=5, description="1: the stem is frozen, 2: res2 as well, ...")
    fpn_channels: Count = Field(
        32,
        description="channels of the pyramid; YOLOv4: of its finest level, doubled at each next one",
    )
    fpn_relu: bool = Field(False, description="a ReLU between pyramid and heads")
    extra_levels: bool = Field(
        False, description="RetinaNet: two more levels, convolved from the last stage"
    )
    norm: Literal["none", "GN", "BN"] = Field(
        "GN", description="normalization in pyramid and head; GN: 32 groups; BN: of YOLOv4"
    )
    head_convs: int = Field(
        2, ge=1, description="RetinaNet: 3x3 convolutions before each predictor"
    )
    box_head_channels: Count = Field(1024, description="Faster R-CNN: width of the box head")
    regions_per_image: Count = Field(512, description="Faster R-CNN: proposals sampled in training")
    anchor_scales: tuple[Positive, ...] = Field(
        (1.5, 2.2, 3.2), min_length=1, description="anchor sides over the level's stride"
    )
    aspect_ratios: tuple[Positive, ...] = Field(
        (1.0, 2.0), min_length=1, description="anchor heights over widths"
    )

    yolov4: YOLOv4Settings | None = Field(
        None, description="YOLOv4: anchors and training images; null: its defaults"
    )

    precision: PrecisionField = Field(FP, description="bit-widths, such as 4w4a")
    precisions: tuple[PrecisionField, ...] = Field(
        (), description="ptq: precisions to score, such as [FP, 4w4a]"
    )
    policy: str | dict[str, Any] | None = Field(
        None, description="which layers are quantized, and how; null: the method's policy"
    )
    scope: Literal["backbone", "backbone+neck", "full"] = Field(
        "backbone", description="what is quantized; full: all except the heads' predictors"
    )
    calibration_images: Count = Field(64, description="training images that set the ranges")

    iterations: Count = Field(1000, description="optimizer steps")
    batch_size: Count = Field(8, description="images a step")
    optimizer: Literal["sgd", "adamw", "sgdt", "adamt", "adamwt"] | None = Field(
        None, description="*t: with transition-rate scheduling; null: sgdt for sgdt, else sgd"
    )
    lr: Positive = Field(0.1, description="learning rate, and U_0 of transition-rate scheduling")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay of weights and biases")
    weight_decay_norm: float = Field(
        0.0, ge=0, description="weight decay of normalization parameters"
    )
    scale_lr_factor: Positive | None = Field(
        None,
        description="learning rate of scales over lr; null: the quantizer's, 1 for LSQ and LSQ+, 0.1 "
        "for the others",
    )
    warmup_iterations: int = Field(50, ge=0, description="steps of linear warm-up")
    lr_schedule: Literal["cosine", "step"] = Field("cosine", description="of the learning rate")
    lr_milestones: tuple[Count, ...] = Field((), description="step: iterations of a drop")
    lr_factor: Positive = Field(0.1, description="step: factor of each drop")
    lr_end: float = Field(0.0, ge=0, description="cosine: learning rate at the end")
    lambda_: Positive = Field(1e-3, description="λ of the target rate λ sqrt(weight bits)")
    target_schedule: Literal["cosine", "linear", "step", "constant"] = Field(
        "cosine", description="schedule of the target transition rate"
    )
    target_milestones: tuple[Count, ...] = Field((), description="step: iterations of a drop")
    target_factor: Positive = Field(0.2, description="step: factor of each drop")
    oscillation: Oscillation | None = Field(
        None, description="dampen or freeze oscillating weights; sgd and adamw"
    )
    clip_gradients: Clipping | None = Field(None, description="null: no clipping")
    amp: bool = Field(False, description="mixed precision: float16 on a GPU, bfloat16 on the CPU")
    evaluate_at: tuple[Count, ...] = Field(
        (), description="iterations after which the test images are scored, in addition to the end"
    )
    seed: int = Field(0, ge=0, description="seed of initialization and of the order of images")

    config: str | None = Field(
        None, description="Detectron2 configuration that replaces the other fields"
    )
    opts: tuple[Any, ...] = Field(
        (), description="overrides of `config`: KEY, VALUE, KEY, VALUE, ..."
    )

    device: str = Field("auto", description="auto | cpu | cuda")
    num_gpus: Count = Field(
        1, description="processes that share a batch, one per GPU; for a `config`"
    )
    log_every: Count = Field(50, description="steps between lines in metrics.jsonl")
    checkpoint_every: Count = Field(200, description="steps between saved training states")

    @model_serializer(mode="wrap")
    def _without_unset_fields(self, dump: Any) -> dict[str, Any]:
        """Leave out newer fields at their defaults: jobs without them keep the ids from before."""
        return {k: v for k, v in dump(self).items() if v or k not in ("yolov4", "lr_end")}

    @property
    def yolov4_settings(self) -> YOLOv4Settings:
        """Anchors and training images of a YOLOv4 detector."""
        return self.yolov4 or YOLOv4Settings()

    @property
    def layout(self) -> Layout:
        """The layout of the scenes."""
        return Layout(self.image_size, self.digits_per_scene, self.digit_size)

    @property
    def added_levels(self) -> int:
        """Pyramid levels above those of the backbone's stages."""
        return 1 if self.meta_architecture == "faster_rcnn" else 2 * self.extra_levels

    @property
    def quant_policy(self) -> QuantPolicy | None:
        """The policy of the backbone; None in full precision."""
        if self.method == "fp":
            return None
        usual = DEFAULT_POLICIES[self.method]
        if usual == "tr" and self.solver.optimizer not in TRANSITION:
            usual = _LEARNED
        return get_policy(self.policy or usual)

    @property
    def solver(self) -> Solver:
        """The training settings."""
        return Solver(
            optimizer=self.optimizer or ("sgdt" if self.method == "sgdt" else "sgd"),
            lr=self.lr,
            iterations=self.iterations,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            weight_decay_norm=self.weight_decay_norm,
            scale_lr_factor=self.scale_lr_factor,
            warmup_iterations=self.warmup_iterations,
            schedule=self.lr_schedule,
            milestones=self.lr_milestones,
            lr_factor=self.lr_factor,
            lr_end=self.lr_end,
            lambda_=self.lambda_,
            weight_bits=self.precision.weight_bits,
            target_schedule=self.target_schedule,
            target_milestones=self.target_milestones,
            target_factor=self.target_factor,
            oscillation=self.oscillation,
            clip_type=self.clip_gradients and self.clip_gradients.type,
            clip_value=self.clip_gradients.value if self.clip_gradients else 1.0,
        )
