"""The recipe of a transfer job: every number that decides its result."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from lowbit.common.file_hash import file_sha256
from lowbit.data import image_set, locate
from lowbit.quant import Precision, get_policy
from lowbit.transfer.protocols import get_protocol, options_of_others
from lowbit.transfer.recipe.board_labels import protocol_label, training_label
from lowbit.transfer.recipe.checks import check_quantized_training, check_training
from lowbit.transfer.recipe.sections import (
    BASES,
    Adaptive,
    Augmentation,
    BaseOptimizer,
    Distillation,
    Epochs,
    FPStart,
    Interpolation,
    Positive,
    Schedule,
    Section,
    TOptimizer,
    Transition,
    WarmupFC,
    published_rate,
    with_milestones,
)
from lowbit.transfer.schedule import learning_rate

VERSION = 1  # of the protocols; raised when the same recipe comes to mean other numbers


class Recipe(Section):
    """Everything a transfer job needs to know.

    `epochs`, `lr`, `weight_decay` and `milestones` default to the protocol's published values
    (SPEC A.8) and are written out in the validated recipe.
    """

    cosmetic: ClassVar[frozenset[str]] = frozenset(
        {
            "name",
            "data_root",
            "device",
            "num_workers",
            "checkpoint_every",
            "save_predictions",
            "cache_dir",
        }
    )

    name: str = Field("transfer", description="what a log calls the job")
    protocol: str = Field(
        "linear", description="linear | linear-exact | knn | finetune | semi | qat | adaptive"
    )
    checkpoint: str = Field(description="backbone file")
    architecture: str | None = Field(None, description="network's name; null: as the file says")
    allow_partial: bool = Field(False, description="score a file that fills the network in part")

    dataset: str = Field("digits", description="image set")
    data_root: str | None = Field(None, description="folder of the sets; null: $LOWBIT_DATA")
    train_on: Literal["train", "trainval"] = Field(
        "train", description="trainval: val as well, as papers do; nothing is validated then"
    )
    image_size: int = Field(32, ge=1, description="side of what the network sees, pixels")
    eval_resize: int | None = Field(
        None, ge=1, description="side before the central crop, pixels; null: image_size"
    )
    eval_interpolation: Interpolation = Field("bicubic", description="of eval_resize")
    augmentation: Augmentation = Field(Augmentation(), description="of the training views")

    precisions: tuple[str, ...] = Field(
        ("FP", "8w8a", "5w5a", "4w4a", "3w3a"), min_length=1, description="each is scored"
    )
    policy: str | dict[str, Any] = Field("ssql", description="which layers are quantized, and how")
    calibration: Literal["clean", "official"] = Field(
        "clean", description="training images as they are, or with training augmentation (A.13-4)"
    )
    calibration_batches: int = Field(4, ge=1, description="batches that set activation ranges")
    calibration_batch_size: int = Field(128, ge=1, description="images a calibration batch")

    epochs: Epochs | None = Field(
        None, description="epochs; default 100 (linear), 50 (finetune, semi), 400 (qat)"
    )
    batch_size: int = Field(256, ge=2, description="images a step; SSQL: 64 on each of 4 devices")
    lr: Positive | Annotated[tuple[Positive, ...], Field(min_length=2)] | None = Field(
        None,
        description="learning rate; default 30, 1e-3, 0.1; linear: of several, val chooses",
    )
    optimizer: BaseOptimizer | TOptimizer = Field(
        "sgd",
        description=f"{' | '.join(BASES)}; qat: each also with transition-rate scheduling, as sgdt",
    )
    schedule: Schedule = Field("step", description="of the rate, per epoch")
    milestones: tuple[int, ...] = Field(
        description="epochs at which `step` decays; default 60 % and 80 % of all"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor of each decay")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and rmsprop, and their t-variants")
    nesterov: bool = Field(False, description="Nesterov's momentum of sgd and sgdt")
    weight_decay: float | None = Field(
        None, ge=0, description="weight decay; default 0 (linear, semi), 1e-4 (finetune, qat)"
    )
    scale_lr_factor: float = Field(
        0.1, ge=0, description="learning rate of quantizer scales over lr (TR supplement)"
    )
    scale_lr: Positive | None = Field(None, description="the same, absolute; wins over the factor")
    scale_weight_decay: float = Field(0.0, ge=0, description="weight decay of quantizer scales")
    transition: Transition | None = Field(
        None, description="t-variants: targets and controller; default {}"
    )
    amp: Literal["bf16", "fp16"] | None = Field(
        None, description="number format of training passes; null: float32"
    )
    augment_views: int = Field(
        0,
        ge=0,
        description="linear: cached augmented views, cycled over epochs; 0: the image itself",
    )
    l2_strengths: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        tuple(10.0**power for power in range(-6, 3)),
        description="linear-exact: lambda of the L2 penalty; of several, val chooses",
    )
    knn_k: int = Field(20, ge=1, description="knn: neighbours that vote")
    knn_temperature: float = Field(0.07, gt=0, description="knn: T of the weights exp(s / T)")
    label_fraction: float | None = Field(
        None, gt=0, le=1, description="semi: share of the training labels; default 0.1"
    )
    warmup_fc: WarmupFC | None = Field(
        None,
        description="start from this linear fit's classifier; {} for A.8's; null: off",
    )
    fp_start: FPStart | None = Field(
        None, description="qat, adaptive: start from this full-precision training; {} for TR's"
    )
    checkpoint_head: bool = Field(
        False, description="qat, adaptive: start from the classifier that the checkpoint holds"
    )
    distillation: Distillation | None = Field(None, description="qat: learn from a teacher")
    adaptive: Adaptive | None = Field(None, description="adaptive: method and bit-widths")

    metrics: tuple[Literal["top1", "mean_per_class"], ...] = Field(
        min_length=1, description="measured; default: what papers report on the image set"
    )
    seed: int = Field(0, ge=0, description="of initialization, order and augmentation")
    eval_batch_size: int = Field(256, ge=1, description="images a forward without learning")
    device: str = Field("auto", description="auto: cuda where there is one, else cpu")
    num_workers: int | None = Field(
        None, ge=0, description="processes that decode image files; null: one a core, 8 at most"
    )
    save_predictions: bool = Field(
        True, description="keep every image's predicted classes, so that anyone can score again"
    )
    cache_dir: str | None = Field(
        None, description="folder of features that jobs share; null: the job's, while it runs"
    )
    checkpoint_every: int = Field(5, ge=1, description="epochs between resumable states")

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates; several where validation images choose."""
        return self.lr if isinstance(self.lr, tuple) else (self.lr,)

    @property
    def chooses(self) -> bool:
        """Whether the protocol has to choose among several values on validation images."""
        field = get_protocol(self.protocol).chooses
        value = getattr(self, field) if field else None
        return isinstance(value, tuple) and len(value) > 1

    def scheduled(self, lr: float, epoch: int) -> float:
        """Return what the schedule makes of a rate in an epoch, counted from 0."""
        return learning_rate(
            epoch,
            self.epochs,
            lr=lr,
            schedule=self.schedule,
            milestones=self.milestones,
            gamma=self.gamma,
        )

    def learning_rates(self, epoch: int) -> list[float]:
        """Return the rates of an epoch, counted from 0."""
        return [self.scheduled(lr, epoch) for lr in self.rates]

    def learning_rate(self, epoch: int) -> float:
        """Return the rate of an epoch, counted from 0, where there is one."""
        (rate,) = self.learning_rates(epoch)
        return rate

    @property
    def teacher_sha256(self) -> str | None:
        """The content of the teacher's file, where there is one; FileNotFoundError: it is not there."""
        if self.distillation is None:
            return None
        path = Path(self.distillation.teacher)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no teacher {path}; nothing was trained. Correct distillation.teacher."
            )
        return file_sha256(path)

    @property
    def protocol_label(self) -> str:
        """What the board calls the protocol."""
        return protocol_label(self)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        protocol = get_protocol(values.get("protocol", "linear"))
        defaults = {"metrics": _metrics_of(values), **protocol.defaults}
        optimizer = str(values.get("optimizer", "sgd"))
        if "optimizer" in protocol.options and optimizer not in ("sgd", "sgdt"):
            decay = {"weight_decay": 1e-2} if optimizer in ("adamw", "adamwt") else {}  # SPEC C.5
            defaults |= {"lr": published_rate(optimizer), **decay}
        if "transition" in protocol.options and optimizer in get_args(TOptimizer):
            defaults["transition"] = {}
        if "adaptive" in protocol.options:
            section = Adaptive.model_validate(values.get("adaptive") or {})
            defaults |= {"adaptive": section, "precisions": section.precisions}
        return with_milestones(values, defaults)

    @field_validator("precisions")
    @classmethod
    def _canonical(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(str(Precision.parse(text)) for text in value)
        if len(set(names)) < len(names):
            raise ValueError(
                f"a precision is named twice in {', '.join(names)}; nothing was scored. "
                "Name each once."
            )
        return names

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        image_set(value)
        return value

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        get_policy(value)
        return value

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        check_training(self)
        check_quantized_training(self)
        if self.eval_resize is not None and self.eval_resize < self.image_size:
            raise ValueError(
                f"eval_resize {self.eval_resize} is smaller than image_size {self.image_size}; "
                "nothing was scored. A crop cannot be larger than its image: raise eval_resize."
            )
        for option in options_of_others(self.protocol):
            if getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(
                    f"{option} has no meaning in protocol {self.protocol!r}; nothing was scored. "
                    f"Remove {option}, or choose another protocol."
                )
        return self


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that name a job and say which rows may be compared with it."""
    policy = get_policy(recipe.policy)
    teacher = {"teacher_sha256": recipe.teacher_sha256} if recipe.distillation else {}
    return {
        "task": "classification",
        "engine": "torch",
        "dataset": recipe.dataset,
        "split_sha256": image_set(recipe.dataset).split_sha256
        or locate(recipe.dataset, root=recipe.data_root).split_sha256,
        "protocol": recipe.protocol_label,
        "training": training_label(recipe),
        "image_size": recipe.image_size,
        "policy": policy.name,
        "policy_fingerprint": policy.fingerprint,
        "method": "-",  # the checkpoint's, known once it is read
        **teacher,
    }


def _metrics_of(values: dict[str, Any]) -> tuple[str, ...]:
    try:
        return image_set(values.get("dataset", Recipe.model_fields["dataset"].default)).metrics
    except (ValueError, AttributeError):  # no image set, which its own field will say
        return ("top1",)
