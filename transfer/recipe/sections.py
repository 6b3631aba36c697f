"""Sections of a transfer recipe, which group related settings."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from lowbit.common.input_files.strict_model import StrictModel
from lowbit.quant import Precision
from lowbit.training.lr_schedules import check_milestones, default_milestones, learning_rate

BASES = ("sgd", "adam", "adamw", "nadam", "adamax", "rmsprop", "adagrad", "lars", "larc")
BaseOptimizer = Literal[
    "sgd", "adam", "adamw", "nadam", "adamax", "rmsprop", "adagrad", "lars", "larc"
]
PROBE_OPTIMIZERS = ("sgd", "lars", "larc")  # of linear classifiers on features
TOptimizer = Literal["sgdt", "adamt", "adamwt", "nadamt", "adamaxt", "rmspropt", "adagradt"]

Epochs = Annotated[int, Field(ge=1)]
Interpolation = Literal["bilinear", "bicubic"]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[Positive, Positive]
Schedule = Literal["step", "cosine", "linear"]
Bits = Annotated[int, Field(ge=1, le=8)]


class Augmentation(StrictModel):
    """The training views: RandomResizedCrop and flip, as in SSQL's transfer (SPEC A.8)."""

    scale: Range = Field((0.8, 1.0), description="area of the crop, share of the image")
    ratio: Range = Field((3 / 4, 4 / 3), description="width over height of the crop")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    interpolation: Interpolation = Field("bilinear", description="of the crop")

    @field_validator("scale", "ratio")
    @classmethod
    def _ordered(cls, value: Range) -> Range:
        if value[0] > value[1]:
            raise ValueError(
                f"the range {value} ends below its start; no view was drawn. "
                "Write it as [low, high]."
            )
        return value


class WarmupFC(StrictModel):
    """The linear fit whose full-precision classifier starts a fine-tuning (SSQL's WARMUP_FC)."""

    epochs: Epochs = Field(100, description="epochs")
    lr: float = Field(30.0, gt=0, description="SGD's learning rate")
    milestones: tuple[int, ...] = Field(description="epochs of x0.1; default 60 % and 80 %")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        return with_milestones(values, {"epochs": 100}) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check(self) -> "WarmupFC":
        check_milestones(self.milestones, self.epochs)
        return self

    def learning_rate(self, epoch: int) -> float:
        """Return the rate of an epoch, counted from 0."""
        return learning_rate(epoch, self.epochs, lr=self.lr, milestones=self.milestones)


class FPStart(StrictModel):
    """The full-precision supervised training that quantized trainings start from.

    Views, batch size, momentum and amp are the recipe's; the seed is separate, so that jobs with
    different seeds share one start.
    """

    epochs: Epochs = Field(200, description="epochs")
    optimizer: BaseOptimizer = Field("sgd", description=" | ".join(BASES))
    lr: Positive = Field(description="learning rate; default 0.1 (sgd), 1e-3 (others)")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay")
    schedule: Schedule = Field("cosine", description="schedule of the rate, per epoch")
    milestones: tuple[int, ...] = Field(description="epochs of `step`; default 60 % and 80 %")
    seed: int = Field(0, ge=0, description="seed of classifier, order and augmentation")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        rate = published_rate(values.get("optimizer", "sgd"))
        return with_milestones(values, {"epochs": 200, "lr": rate})

    @model_validator(mode="after")
    def _check(self) -> "FPStart":
        check_milestones(self.milestones, self.epochs)
        return self


class Transition(StrictModel):
    """Transition-rate scheduling: the target R and how the rates U follow it (SPEC C.1 to C.5)."""

    lambda_: Positive | Literal["natural"] = Field(
        5e-3,
        description="R_0 = lambda sqrt(weight bits); natural: R_0 is the plain optimizer's own rate, "
        "measured in the first 5 % of the steps",
    )
    controller: Literal["eq11", "s1", "s2", "s3", "scaled"] = Field(
        "eq11",
        description="how U follows R: the paper's Eq. 11, its supplement's variants, or Eq. 11 with "
        "the time constants of eta and momentum as shares of the training",
    )
    highest: Positive | None = Field(
        None, description="U is at most this many times its start; null: no bound"
    )
    scope: Literal["layer", "global"] = Field("layer", description="unit that has one K and U")
    schedule: Literal["cosine", "linear", "step", "constant"] = Field(
        "cosine", description="schedule of R, per step"
    )
    final_target: float = Field(0.0, ge=0, description="R at the end; `cosine`, `linear`")
    milestones: tuple[int, ...] | None = Field(
        None, description="epochs at which `step` decays R; default 25, 50 and 75 %"
    )
    factor: float = Field(0.2, gt=0, le=1, description="factor of each decay; TR's Table S3: 1/5")
    momentum: float = Field(0.99, ge=0, lt=1, description="m of K")
    eta: Positive | None = Field(None, description="controller's step; null: the learning rate")
    decay: Literal["adaptive", "base"] = Field(
        "adaptive", description="adamwt: weight decay shrinks weights by U or by the base rate"
    )

    @model_validator(mode="after")
    def _check(self) -> "Transition":
        if self.milestones is not None and self.schedule != "step":
            raise ValueError(
                f"transition.milestones do not apply to schedule {self.schedule!r}; nothing was "
                "trained. Remove them, or set transition.schedule to step."
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unset_bound(self, dump: Any) -> dict[str, Any]:
        """Leave out `highest` if it is null: jobs without it keep the ids from before it existed."""
        return {k: v for k, v in dump(self).items() if k != "highest" or v is not None}

    def decays(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs at which `step` decays R."""
        if self.schedule != "step":
            return ()
        if self.milestones is not None:
            return self.milestones
        return tuple(sorted({round(k * epochs / 4) for k in (1, 2, 3)} - {0, epochs}))


class Distillation(StrictModel):
    """A full-precision network whose predictions a quantized one learns (SPEC C.1: ReActNet)."""

    teacher: str = Field(description="file of a backbone and its classifier")
    architecture: str | None = Field(
        None, description="teacher's network; null: as stated in the file"
    )
    temperature: Positive = Field(1.0, description="T of both softmaxes; the term is scaled by T^2")
    weight: float = Field(
        1.0, gt=0, le=1, description="share of the teacher's term; 1: labels are not used"
    )


class Adaptive(StrictModel):
    """One set of weights for several bit-widths (SPEC D)."""

    method: Literal["coquant", "adabits", "switchable-bn", "any-precision", "individual"] = Field(
        "coquant",
        description="training method; individual: one network per bit-width, for comparison",
    )
    bits: Annotated[tuple[Bits, ...], Field(min_length=1)] = Field(
        (8, 6, 4, 2), description="trained bit-widths, decreasing"
    )
    zero_shot: tuple[Bits, ...] = Field((7, 5, 3), description="bit-widths scored but not trained")
    swap_probability: float = Field(
        0.9,
        ge=0,
        le=1,
        description="coquant: initial p_1, the probability that a block stays the student's",
    )
    swap_depth: Literal["linear", "uniform"] = Field(
        "linear", description="coquant: p over depth, rising to 1 or the same everywhere"
    )
    teacher_lambda: float = Field(
        1e-3, ge=0, description="coquant: weight of distance against confidence (Eq. 4)"
    )
    confidence: Literal["entropy", "max-probability", "cross-entropy"] = Field(
        "entropy", description="coquant: of a teacher"
    )
    distance: Literal["l2", "mean-squared", "bits"] = Field(
        "l2", description="coquant: of a teacher"
    )
    alpha: Positive | None = Field(None, description="PACT's first clip; null: the policy's")
    alpha_lr: Positive = Field(0.1, description="learning rate of the clips")
    alpha_weight_decay: float = Field(1e-4, ge=0, description="weight decay of the clips")
    norm_batches: Annotated[int, Field(ge=1)] = Field(
        200, description="zero-shot: training batches whose values' mean and variance the norms get"
    )

    @model_validator(mode="after")
    def _check(self) -> "Adaptive":
        if list(self.bits) != sorted(set(self.bits), reverse=True):
            raise ValueError(
                f"adaptive.bits {list(self.bits)} do not decrease; nothing was trained. List each "
                "bit-width once, the highest first."
            )
        both = set(self.bits) & set(self.zero_shot)
        if both or len(set(self.zero_shot)) < len(self.zero_shot):
            raise ValueError(
                f"adaptive.zero_shot {list(self.zero_shot)} names a bit-width twice or one of "
                "adaptive.bits; nothing was trained. Zero-shot bit-widths are those not trained."
            )
        return self

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Scored precisions; weights and activations have equal bits (SPEC D.1)."""
        return tuple(Precision(b, b) for b in (*self.bits, *self.zero_shot))


def published_rate(optimizer: str) -> float:
    """Return the rate of TR's CIFAR experiments, 0.1 for SGD and 1e-3 for others (SPEC C.6).

    Of LARS and LARC it is SimSiam's for 256 images, which is multiplied by the batch size over 256.
    """
    return 0.1 if optimizer in ("sgd", "sgdt", "lars", "larc") else 1e-3


def with_milestones(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Fill in `defaults`, then milestones from the resulting epochs."""
    filled = {**defaults, **values}
    if filled.get("milestones") is None:
        try:
            filled["milestones"] = default_milestones(int(filled.get("epochs")))
        except (TypeError, ValueError):  # epochs is not a number: its own field reports the error
            filled["milestones"] = ()
    return filled
