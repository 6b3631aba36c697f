"""Recipe of a pretraining job: all settings that determine its result."""

from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lowbit.common.input_files.strict_model import StrictModel
from lowbit.data import image_set, locate
from lowbit.pretrain.frameworks.base import check_framework
from lowbit.pretrain.frameworks.options import EmaSchedule, FrameworkOptions, Norm
from lowbit.pretrain.pairings import Reduction, get_pairing
from lowbit.quant import QuantPolicy, get_policy

VERSION = 1  # of the training; raised when the same recipe yields different numbers

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Strength = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=1)]
Bit = Annotated[int, Field(ge=1, le=16)]

_TITLES = {  # as written in the papers' tables
    "simsiam": "SimSiam",
    "simclr": "SimCLR",
    "byol": "BYOL",
    "moco_v2": "MoCov2",
    "moco_v3": "MoCov3",
}
_PUBLISHED_WITH = {"ssql": "simsiam", "cq": "simclr"}


def _ordered(value: tuple) -> tuple:
    if value[0] > value[1]:
        raise ValueError(
            f"the range {list(value)} ends below its start; nothing was trained. "
            "Write it as [low, high]"
        )
    return value


class Augmentation(StrictModel):
    """The random views, as `lowbit.data.Augment` draws them; defaults are SSQL's for CIFAR."""

    scale: tuple[Positive, Positive] = Field((0.2, 1.0), description="crop's area, share of image")
    ratio: tuple[Positive, Positive] = Field((3 / 4, 4 / 3), description="crop's width over height")
    flip: Share = Field(0.5, description="probability of a horizontal flip")
    jitter: tuple[Strength, Strength, Strength, Annotated[float, Field(ge=0, le=0.5)]] = Field(
        (0.4, 0.4, 0.4, 0.1), description="strength of brightness, contrast, saturation, hue"
    )
    jitter_p: Share = Field(0.8, description="probability of the jitter")
    gray_p: Share = Field(0.2, description="probability of turning gray")
    blur_p: Share = Field(0.0, description="probability of a blur, sigma in 0.1..2 pixels")
    jitter_order: Literal["fixed", "random"] = Field(
        "fixed", description="order of the four: as above for all images, or random per image"
    )
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="of the crop")

    _check_ranges = field_validator("scale", "ratio")(_ordered)


class Recipe(StrictModel):
    """Settings of a pretraining job; defaults are official SSQL's for CIFAR-10."""

    cosmetic: ClassVar[frozenset[str]] = frozenset(
        {
            "name",
            "data_root",
            "device",
            "num_gpus",
            "num_workers",
            "checkpoint_every",
            "keep_checkpoints",
            "knn_every",
        }
    )

    name: str = Field("pretrain", description="job's name in logs")
    framework: str = Field("simsiam", description="simsiam | simclr | byol | moco_v2 | moco_v3")
    pairing: str = Field("plain", description="plain | ssql | cq-a | cq-b | cq-c | cq-quant")
    architecture: str = Field(description="network's name")
    policy: str | dict[str, Any] | None = Field(
        None, description="which layers are quantized, and how; null: the pairing's published one"
    )

    dataset: str = Field(description="image set")
    split: Literal["train", "trainval"] = Field("train", description="images trained on")
    data_root: str | None = Field(None, description="folder of the sets; null: $LOWBIT_DATA")
    image_size: int = Field(32, ge=1, description="side of a view, pixels")
    augmentation: Augmentation = Field(Augmentation(), description="of the views")

    epochs: int = Field(400, ge=0, description="epochs; 0: the untrained network of the seed")
    batch_size: int = Field(
        512, ge=2, description="images per step; the remainder of an epoch is dropped"
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="parts a batch is split into to save memory; batch norms, observed ranges and "
        "negatives see one part",
    )
    optimizer: Literal["sgd", "lars", "adamw"] = Field("sgd", description="sgd | lars | adamw")
    lr: Positive = Field(0.05, description="base learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="of the optimizer; adamw's beta1")
    nesterov: bool = Field(False, description="Nesterov momentum, sgd only")
    weight_decay: float = Field(
        5e-4, ge=0, description="weight decay, on all parameters; lars: not on biases and norms"
    )
    schedule: Literal["epoch", "step"] = Field(
        "epoch", description="how often the cosine is updated"
    )
    warmup_epochs: int = Field(0, ge=0, description="epochs of linear warm-up")
    predictor_lr: Literal["scheduled", "fixed"] = Field(
        "scheduled", description="fixed: the predictor's rate stays at lr (SimSiam)"
    )
    sync_bn: bool = Field(False, description="batch norms use the batch of all processes")
    amp: Literal["off", "bf16", "fp16"] = Field(
        "off", description="number format of the networks' passes; off: single precision"
    )
    channels_last: bool = Field(False, description="memory layout of images and features")

    dim: Width | None = Field(None, description="projection's width; null: as published")
    hidden_dim: Width | None = Field(None, description="hidden width; null: as published")
    projector_layers: Width | None = Field(
        None, description="linear layers of the projector, not simsiam's; null: as published"
    )
    projector_norm: Norm | None = Field(
        None, description="its batch norms, not simsiam's: none | hidden | all; null: as published"
    )
    temperature: Positive | None = Field(
        None, description="softmax temperature of simclr and moco; null: simclr 0.5, moco 0.2"
    )
    ema: Share | None = Field(
        None, description="momentum of byol's and moco's target; null: moco_v2 0.999, others 0.99"
    )
    ema_schedule: EmaSchedule | None = Field(
        None, description="constant | cosine, to 1; null: moco_v3 cosine, others constant"
    )
    queue_size: Width | None = Field(None, description="moco_v2's keys; null: 4096")
    weight_bits: tuple[Bit, Bit] = Field((2, 8), description="ssql: range of b_w, inclusive")
    activation_bits: tuple[Bit, Bit] = Field((4, 8), description="ssql: range of b_a, inclusive")
    precision_set: tuple[Bit, Bit] = Field((6, 16), description="cq: range of q, inclusive")
    loss_reduction: Reduction | None = Field(
        None,
        description="how the pairing's terms are combined; null: as published, ssql mean, cq sum",
    )

    seed: int = Field(0, ge=0, description="seed of initialization, order, views and bits")
    device: str = Field("auto", description="auto: cuda if available, else cpu")
    num_gpus: int = Field(1, ge=1, description="processes that share each batch, one per GPU")
    num_workers: int = Field(0, ge=0, description="processes that read images; 0: none")
    checkpoint_every: int = Field(10, ge=1, description="epochs between resumable states")
    keep_checkpoints: int = Field(2, ge=1, description="number of newest states to keep")
    knn_every: int = Field(0, ge=0, description="epochs between kNN accuracies on val; 0: never")

    _check_ranges = field_validator("weight_bits", "activation_bits", "precision_set")(_ordered)

    @property
    def quant_policy(self) -> QuantPolicy | None:
        """Quantization policy of the encoder; None if nothing is quantized."""
        spec = self.policy or get_pairing(self.pairing).policy
        return None if spec is None else get_policy(spec)

    @property
    def framework_options(self) -> FrameworkOptions:
        """Options of the framework."""
        return FrameworkOptions(**{f.name: getattr(self, f.name) for f in fields(FrameworkOptions)})

    @property
    def reduction(self) -> Reduction:
        return self.loss_reduction or get_pairing(self.pairing).reduction

    @property
    def method(self) -> str:
        """Label of the backbone on the board: SimSiam, SSQL, SimCLR+SSQL, CQ-C, untrained, ..."""
        if self.epochs == 0:
            return "untrained"
        framework = _TITLES.get(self.framework, self.framework)
        if self.pairing == "plain":
            return framework
        published_with = _PUBLISHED_WITH.get(self.pairing.partition("-")[0])
        title = self.pairing.upper().replace("QUANT", "Quant")
        return title if self.framework == published_with else f"{framework}+{title}"

    def results(self) -> dict[str, Any]:
        """Return the fields that determine the result, as plain data."""
        return self.model_dump(mode="json", exclude=set(self.cosmetic))

    @field_validator("framework")
    @classmethod
    def _known_framework(cls, value: str) -> str:
        check_framework(value)
        return value

    @field_validator("pairing")
    @classmethod
    def _known_pairing(cls, value: str) -> str:
        get_pairing(value)
        return value

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        image_set(value)
        return value

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if 0 < self.epochs <= self.warmup_epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs} leave none of {self.epochs} epochs; nothing "
                "was trained. Lower warmup_epochs or raise epochs"
            )
        if self.framework == "simsiam" and (self.projector_layers or self.projector_norm):
            raise ValueError(
                "simsiam's projector is always the published one; nothing was trained. Remove "
                "projector_layers and projector_norm, or choose another framework"
            )
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError(
                f"nesterov needs sgd with momentum, not {self.optimizer} with {self.momentum:g}; "
                "nothing was trained. Remove nesterov, or choose sgd and a momentum"
            )
        pairing = get_pairing(self.pairing)
        if pairing.policy is None and self.policy is not None:
            raise ValueError(
                f"pairing {self.pairing!r} quantizes nothing, so policy {self.policy!r} would have "
                "no effect; nothing was trained. Remove policy, or choose a pairing that quantizes"
            )
        policy = self.quant_policy
        if policy is not None and policy.smooth is not None:
            raise ValueError(
                f"policy {policy.name!r} smooths activations into weights when it is calibrated, and "
                "pretraining calibrates nothing; nothing was trained. Remove smooth from the policy"
            )
        if (
            policy is not None
            and not pairing.observes
            and policy.activation.build("activation").ranges_need_full_precision
        ):
            raise ValueError(
                f"policy {policy.name!r} sets its activation ranges from full-precision passes, "
                f"and pairing {self.pairing!r} has none; nothing was trained. "
                "Use policy cq, or a variant whose activation range is 'running'"
            )
        return self


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that identify a job and determine which rows are comparable."""
    policy = recipe.quant_policy
    apart = recipe.num_gpus > 1 and not recipe.sync_bn  # batch norms see only a process' share
    return {
        "task": "pretrain",
        "engine": "torch",
        "dataset": recipe.dataset,
        "split_sha256": locate(recipe.dataset, root=recipe.data_root).split_sha256,
        "protocol": f"{recipe.framework}/{recipe.pairing}",  # other losses are not comparable
        "image_size": recipe.image_size,
        "policy": policy.name if policy else "-",
        "policy_fingerprint": policy.fingerprint if policy else "-",
        "policy_on_board": True,
        "method": recipe.method,
        **({"processes": recipe.num_gpus} if apart else {}),
    }
