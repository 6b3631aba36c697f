"""The recipe of a transfer job: every number that decides its result."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data import image_set, locate
from quant import Precision, get_policy
from transfer.protocols import get_protocol, options_of_others
from transfer.schedule import default_milestones, learning_rate

VERSION = 1  # of the protocols; raised when the same recipe comes to mean other numbers

Epochs = Annotated[int, Field(ge=1)]
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Augmentation(_Model):
    """The training views: RandomResizedCrop and flip, as SSQL's transfer (SPEC A.8)."""

    scale: Range = Field((0.8, 1.0), description="area of the crop, share of the image")
    ratio: Range = Field((3 / 4, 4 / 3), description="width over height of the crop")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")

    @field_validator("scale", "ratio")
    @classmethod
    def _ordered(cls, value: Range) -> Range:
        if value[0] > value[1]:
            raise ValueError(
                f"the range {value} ends below its start; no view was drawn. "
                "Write it as [low, high]."
            )
        return value


class WarmupFC(_Model):
    """The linear fit whose full-precision classifier starts a fine-tuning (SSQL's WARMUP_FC)."""

    epochs: Epochs = Field(100, description="epochs")
    lr: float = Field(30.0, gt=0, description="SGD's learning rate")
    milestones: tuple[int, ...] = Field(description="epochs of x0.1; default 60 % and 80 %")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        return _with_milestones(values, {"epochs": 100}) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check(self) -> "WarmupFC":
        _check_milestones(self.milestones, self.epochs)
        return self

    def learning_rate(self, epoch: int) -> float:
        """Return the rate of an epoch, counted from 0."""
        return learning_rate(epoch, self.epochs, lr=self.lr, milestones=self.milestones)


class Recipe(_Model):
    """Everything a transfer job needs to know.

    `epochs`, `lr`, `weight_decay` and `milestones` default to the protocol's published values
    (SPEC A.8) and are written out in the validated recipe.
    """

    cosmetic: ClassVar[frozenset[str]] = frozenset(
        {"name", "data_root", "device", "checkpoint_every"}
    )

    name: str = Field("transfer", description="what a log calls the job")
    protocol: str = Field("linear", description="linear | finetune")
    checkpoint: str = Field(description="backbone file")
    architecture: str | None = Field(None, description="network's name; null: as the file says")
    allow_partial: bool = Field(False, description="score a file that fills the network in part")

    dataset: str = Field("digits", description="image set")
    data_root: str | None = Field(None, description="folder of the sets; null: $LOWBIT_DATA")
    image_size: int = Field(32, ge=1, description="side of what the network sees, pixels")
    eval_resize: int | None = Field(
        None, ge=1, description="side before the central crop, pixels; null: image_size"
    )
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

    epochs: Epochs = Field(description="epochs; default 100 (linear), 50 (finetune)")
    batch_size: int = Field(256, ge=2, description="images a step; SSQL: 64 on each of 4 devices")
    lr: float = Field(gt=0, description="SGD's learning rate; default 30, 1e-3")
    schedule: Literal["step", "cosine"] = Field("step", description="of the rate, per epoch")
    milestones: tuple[int, ...] = Field(
        description="epochs at which `step` decays; default 60 % and 80 % of all"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor of each decay")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum")
    weight_decay: float = Field(ge=0, description="SGD's weight decay; default 0, 1e-4")
    augment_views: int = Field(
        0,
        ge=0,
        description="linear: cached augmented views, cycled over epochs; 0: the image itself",
    )
    warmup_fc: WarmupFC | None = Field(
        None,
        description="finetune: start from this linear fit's classifier; {} for A.8's; null: off",
    )

    metrics: tuple[Literal["top1", "mean_per_class"], ...] = Field(
        ("top1",), min_length=1, description="measured; both are in a result's details"
    )
    seed: int = Field(0, ge=0, description="of initialization, order and augmentation")
    eval_batch_size: int = Field(256, ge=1, description="images a forward without learning")
    device: str = Field("auto", description="auto: cuda where there is one, else cpu")
    checkpoint_every: int = Field(5, ge=1, description="epochs between resumable states")

    def learning_rate(self, epoch: int) -> float:
        """Return the rate of an epoch, counted from 0."""
        return learning_rate(
            epoch,
            self.epochs,
            lr=self.lr,
            schedule=self.schedule,
            milestones=self.milestones,
            gamma=self.gamma,
        )

    @property
    def protocol_label(self) -> str:
        """What the board calls the protocol; augmented views or calibration make it another one."""
        views = f"-views{self.augment_views}" if self.augment_views else ""
        calibration = "" if self.calibration == "clean" else f"-{self.calibration}"
        return f"{self.protocol}{views}{calibration}"

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = get_protocol(values.get("protocol", "linear")).defaults
        return _with_milestones(values, defaults)

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
        _check_milestones(self.milestones, self.epochs)
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
    return {
        "task": "classification",
        "engine": "torch",
        "dataset": recipe.dataset,
        "split_sha256": locate(recipe.dataset, root=recipe.data_root).split_sha256,
        "protocol": recipe.protocol_label,
        "image_size": recipe.image_size,
        "policy": policy.name,
        "policy_fingerprint": policy.fingerprint,
        "method": "-",  # the checkpoint's, known once it is read
    }


def _with_milestones(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    filled = {**defaults, **values}
    if filled.get("milestones") is None:
        try:
            filled["milestones"] = default_milestones(int(filled["epochs"]))
        except (TypeError, ValueError):  # epochs is no number, which its own field will say
            filled["milestones"] = ()
    return filled


def _check_milestones(milestones: tuple[int, ...], epochs: int) -> None:
    if list(milestones) != sorted(set(milestones)) or any(
        not 0 < milestone < epochs for milestone in milestones
    ):
        raise ValueError(
            f"milestones {list(milestones)} do not rise within 1..{epochs - 1}; nothing was "
            f"trained. A decay at or after the last of {epochs} epochs would never happen: change "
            "milestones, or leave them out for 60 % and 80 % of the epochs."
        )
