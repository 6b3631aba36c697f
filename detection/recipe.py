"""The recipe of a detection job: every number that decides its result."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from detection.datasets import list_detection_sets
from detection.scenes import Layout
from detection.solver import Solver
from quant import Precision, QuantPolicy, get_policy

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

DEFAULT_POLICIES = {"lsq": "lsq", "sgdt": "tr"}


class Recipe(BaseModel):
    """Everything a detection job needs to know; the defaults are the demo's.

    Methods:
        fp: train the detector in full precision from a backbone `checkpoint`.
        lsq: quantize the backbone of a trained `detector`, calibrate, train with SGD (LSQ).
        sgdt: the same with the quantizer of transition-rate scheduling and SGDT.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    cosmetic: ClassVar[frozenset[str]] = frozenset(
        {"name", "data_root", "device", "log_every", "checkpoint_every"}
    )

    name: str = Field("detection", description="what a log calls the job")
    engine: Literal["auto", "detectron2", "torchvision"] = Field(
        "auto", description="auto: detectron2 where it is installed, else torchvision"
    )
    meta_architecture: Literal["retinanet"] = Field("retinanet", description="the detector")
    method: Literal["fp", "lsq", "sgdt"] = Field("fp", description="see above")
    checkpoint: str | None = Field(None, description="backbone file; fp needs it")
    detector: str | None = Field(None, description="trained detector file; lsq and sgdt need it")
    architecture: str | None = Field(None, description="backbone's name; null: as the file says")

    dataset: str = Field("digit-scenes", description="detection set")
    data_root: str | None = Field(None, description="folder of the image sets; null: $LOWBIT_DATA")
    image_size: Count = Field(96, description="side of an image, pixels")
    train_images: Count = Field(2000, description="images")
    test_images: Count = Field(300, description="images")
    test_split: Literal["val", "test"] = Field("test", description="val: to choose a recipe by")
    scene_seed: int = Field(0, ge=0, description="names the stream of scenes")
    digits_per_scene: tuple[int, int] = Field((2, 4), description="fewest and most")
    digit_size: tuple[int, int] = Field((16, 40), description="height of a digit, pixels")

    features: tuple[str, ...] = Field(
        ("res4", "res5"), min_length=1, description="stages the pyramid is built on"
    )
    fpn_channels: Count = Field(32, description="channels of the pyramid")
    extra_levels: bool = Field(False, description="two more levels, convolved from the last stage")
    norm: Literal["none", "GN"] = Field(
        "GN", description="normalization in pyramid and head; GN: 32 groups"
    )
    head_convs: int = Field(2, ge=1, description="3x3 convolutions before each predictor")
    anchor_scales: tuple[Positive, ...] = Field(
        (1.5, 2.2, 3.2), min_length=1, description="side of an anchor over its level's stride"
    )
    aspect_ratios: tuple[Positive, ...] = Field(
        (1.0, 2.0), min_length=1, description="height of an anchor over its width"
    )

    precision: str = Field("FP", description="bits of the backbone, as 4w4a")
    policy: str | dict[str, Any] | None = Field(
        None, description="which layers are quantized, and how; null: the method's"
    )
    scope: Literal["backbone"] = Field("backbone", description="what is quantized")
    calibration_images: Count = Field(64, description="training images that set the ranges")

    iterations: Count = Field(1000, description="optimizer steps")
    batch_size: Count = Field(8, description="images a step")
    lr: Positive = Field(0.1, description="SGD's learning rate, and SGDT's U_0")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum")
    weight_decay: float = Field(1e-4, ge=0, description="of weights and biases")
    weight_decay_norm: float = Field(0.0, ge=0, description="of normalization parameters")
    scale_lr_factor: Positive = Field(0.1, description="learning rate of scales over lr")
    warmup_iterations: int = Field(50, ge=0, description="steps of linear warm-up")
    lambda_: Positive = Field(1e-3, description="λ of the target rate λ sqrt(weight bits)")
    seed: int = Field(0, ge=0, description="of initialization and of the order of images")

    device: str = Field("auto", description="auto | cpu | cuda")
    log_every: Count = Field(50, description="steps between lines of metrics.jsonl")
    checkpoint_every: Count = Field(200, description="steps between training states")

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        if value not in list_detection_sets():
            raise ValueError(
                f"there is no detection set {value!r}; nothing was trained. "
                f"Use one of {', '.join(list_detection_sets())}."
            )
        return value

    @field_validator("precision")
    @classmethod
    def _canonical_precision(cls, value: str) -> str:
        return str(Precision.parse(value))

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if (self.method == "fp") != (self.precision == "FP"):
            raise ValueError(
                f"method {self.method!r} at precision {self.precision} makes no sense; nothing was "
                "trained. Use fp at FP, and lsq or sgdt at a precision such as 4w4a."
            )
        if self.method == "fp" and self.policy is not None:
            raise ValueError(
                "method 'fp' quantizes nothing, yet a policy is given; nothing was trained. "
                "Leave the policy out, or use method lsq or sgdt."
            )
        if self.calibration_images > self.train_images:
            raise ValueError(
                f"calibration_images is {self.calibration_images}, but there are only "
                f"{self.train_images} training images; nothing was trained. Ask for fewer."
            )
        if self.norm == "GN" and self.fpn_channels % 32:
            raise ValueError(
                f"GN has 32 groups, which fpn_channels {self.fpn_channels} cannot be divided into; "
                "nothing was trained. Use a multiple of 32, or norm none."
            )
        Layout(self.image_size, self.digits_per_scene, self.digit_size)  # or it raises
        policy = self.quant_policy
        if self.method == "sgdt" and policy.weight.kind == "MinMax":
            raise ValueError(
                f"policy {policy.name!r} takes each weight's scale from the weight itself, so its "
                "transition points move; nothing was trained. Use policy 'tr' with method sgdt."
            )
        return self

    @property
    def layout(self) -> Layout:
        """What a scene looks like."""
        return Layout(self.image_size, self.digits_per_scene, self.digit_size)

    @property
    def quant_policy(self) -> QuantPolicy | None:
        """The policy of the backbone; None in full precision."""
        if self.method == "fp":
            return None
        return get_policy(self.policy or DEFAULT_POLICIES[self.method])

    @property
    def solver(self) -> Solver:
        """The numbers of the training."""
        return Solver(
            optimizer="sgdt" if self.method == "sgdt" else "sgd",
            lr=self.lr,
            iterations=self.iterations,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            weight_decay_norm=self.weight_decay_norm,
            scale_lr_factor=self.scale_lr_factor,
            warmup_iterations=self.warmup_iterations,
            lambda_=self.lambda_,
            weight_bits=Precision.parse(self.precision).weight_bits,
        )
