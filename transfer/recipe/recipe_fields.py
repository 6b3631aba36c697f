"""Fields of a transfer recipe: all settings that determine a job's result."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from lowbit.backbones.precision_field import PrecisionField
from lowbit.common.file_hash import file_sha256
from lowbit.common.input_files.strict_model import GrownModel
from lowbit.quant import Precision
from lowbit.training.lr_schedules import learning_rate
from lowbit.training.oscillation_control import Oscillation
from lowbit.transfer.recipe.protocol_registry import get_protocol
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
    TOptimizer,
    Transition,
    WarmupFC,
)


class RecipeFields(GrownModel):
    """Settings of a transfer job, and values derived from them."""

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

    later: ClassVar[frozenset[str]] = frozenset({"oscillation"})

    name: str = Field("transfer", description="job's name in logs")
    protocol: str = Field(
        "linear", description="linear | linear-exact | knn | finetune | semi | qat | adaptive"
    )
    checkpoint: str = Field(description="backbone file")
    architecture: str | None = Field(
        None, description="network's name; null: as stated in the file"
    )
    allow_partial: bool = Field(
        False, description="score a file that fills only part of the network"
    )

    dataset: str = Field("digits", description="image set")
    data_root: str | None = Field(None, description="folder of the sets; null: $LOWBIT_DATA")
    train_on: Literal["train", "trainval"] = Field(
        "train", description="trainval: also on val, as in papers; then there is no validation"
    )
    image_size: int = Field(32, ge=1, description="side of the network's input, pixels")
    eval_resize: int | None = Field(
        None, ge=1, description="side before the central crop, pixels; null: image_size"
    )
    eval_interpolation: Interpolation = Field("bicubic", description="interpolation of eval_resize")
    augmentation: Augmentation = Field(Augmentation(), description="options of the training views")

    precisions: tuple[PrecisionField, ...] = Field(
        tuple(map(Precision.parse, ("FP", "8w8a", "5w5a", "4w4a", "3w3a"))),
        min_length=1,
        description="precisions to score",
    )
    policy: str | dict[str, Any] = Field("ssql", description="which layers are quantized, and how")
    calibration: Literal["clean", "official"] = Field(
        "clean", description="training images as they are, or with training augmentation (A.13-4)"
    )
    calibration_batches: int = Field(4, ge=1, description="batches that set activation ranges")
    calibration_batch_size: int = Field(128, ge=1, description="images per calibration batch")

    epochs: Epochs | None = Field(
        None, description="epochs; default 100 (linear), 50 (finetune, semi), 400 (qat)"
    )
    batch_size: int = Field(256, ge=2, description="images per step; SSQL: 64 on each of 4 devices")
    lr: Positive | Annotated[tuple[Positive, ...], Field(min_length=2)] | None = Field(
        None,
        description="learning rate; default 30, 1e-3, 0.1; linear: of several, val chooses",
    )
    optimizer: BaseOptimizer | TOptimizer = Field(
        "sgd",
        description=f"{' | '.join(BASES)}; linear: sgd, lars, larc; qat: each but these two also with "
        "transition-rate scheduling, as sgdt. The trust ratio of lars applies with weight decay 0 too",
    )
    schedule: Schedule = Field("step", description="schedule of the rate, per epoch")
    milestones: tuple[int, ...] = Field(
        description="epochs at which `step` decays; default 60 % and 80 % of all"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor of each decay")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="momentum of sgd, rmsprop, their t-variants, lars, larc"
    )
    nesterov: bool = Field(False, description="Nesterov's momentum of sgd and sgdt")
    weight_decay: float | None = Field(
        None, ge=0, description="weight decay; default 0 (linear, semi), 1e-4 (finetune, qat)"
    )
    scale_lr_factor: float | None = Field(
        None,
        ge=0,
        description="learning rate of quantizer scales over lr; null: the quantizer's, 1 for LSQ and "
        "LSQ+, 0.1 for the others (TR supplement)",
    )
    scale_lr: Positive | None = Field(None, description="the same, absolute; overrides the factor")
    scale_weight_decay: float = Field(0.0, ge=0, description="weight decay of quantizer scales")
    transition: Transition | None = Field(
        None, description="t-variants: targets and controller; default {}"
    )
    oscillation: Oscillation | None = Field(
        None, description="qat: dampen or freeze oscillating weights, with a plain optimizer"
    )
    amp: Literal["bf16", "fp16"] | None = Field(
        None, description="number format of training passes; null: float32"
    )
    augment_views: int = Field(
        0,
        ge=0,
        description="linear: cached augmented views, cycled over epochs; 0: the central view",
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

    metrics: tuple[Literal["top1", "mean_per_class", "mAP"], ...] = Field(
        min_length=1,
        description="metrics; default: those papers report on the image set; mAP: mean over classes of "
        "average precision, of samples that may have several classes",
    )
    seed: int = Field(0, ge=0, description="seed of initialization, order and augmentation")
    eval_batch_size: int = Field(256, ge=1, description="images per forward pass without training")
    device: str = Field("auto", description="auto: cuda if available, else cpu")
    num_workers: int | None = Field(
        None, ge=0, description="processes that decode image files; null: one per core, 8 at most"
    )
    save_predictions: bool = Field(
        True, description="save every image's predicted classes, so that scores can be recomputed"
    )
    cache_dir: str | None = Field(
        None, description="folder of features shared by jobs; null: the job's, while it runs"
    )
    checkpoint_every: int = Field(5, ge=1, description="epochs between resumable states")

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates; several if one is chosen on validation images."""
        return self.lr if isinstance(self.lr, tuple) else (self.lr,)

    @property
    def chooses(self) -> bool:
        """Whether the protocol has to choose among several values on validation images."""
        field = get_protocol(self.protocol).chooses
        value = getattr(self, field) if field else None
        return isinstance(value, tuple) and len(value) > 1

    def scheduled(self, lr: float, epoch: int) -> float:
        """Return the scheduled value of a rate in an epoch, counted from 0."""
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
        """Return the rate of an epoch, counted from 0, if there is only one."""
        (rate,) = self.learning_rates(epoch)
        return rate

    @property
    def teacher_sha256(self) -> str | None:
        """Hash of the teacher's file, if any; FileNotFoundError: it is missing."""
        if self.distillation is None:
            return None
        path = Path(self.distillation.teacher)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no teacher {path}; nothing was trained. Correct distillation.teacher."
            )
        return file_sha256(path)
