"""The recipe of a transfer job: every number that decides its result."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data import image_set, locate
from quant import Precision, get_policy
from transfer.protocols import get_protocol, options_of_others
from transfer.schedule import default_milestones, learning_rate

VERSION = 1  # of the protocols; raised when the same recipe comes to mean other numbers

Epochs = Annotated[int, Field(ge=1)]
Interpolation = Literal["bilinear", "bicubic"]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Augmentation(_Model):
    """The training views: RandomResizedCrop and flip, as SSQL's transfer (SPEC A.8)."""

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
    protocol: str = Field("linear", description="linear | linear-exact | knn | finetune | semi")
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
        None, description="epochs; default 100 (linear), 50 (finetune, semi)"
    )
    batch_size: int = Field(256, ge=2, description="images a step; SSQL: 64 on each of 4 devices")
    lr: Positive | Annotated[tuple[Positive, ...], Field(min_length=2)] | None = Field(
        None,
        description="SGD's learning rate; default 30, 1e-3, 0.1; linear: of several, val chooses",
    )
    schedule: Literal["step", "cosine"] = Field("step", description="of the rate, per epoch")
    milestones: tuple[int, ...] = Field(
        description="epochs at which `step` decays; default 60 % and 80 % of all"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor of each decay")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum")
    nesterov: bool = Field(False, description="finetune, semi: Nesterov's momentum")
    weight_decay: float | None = Field(
        None, ge=0, description="SGD's weight decay; default 0 (linear, semi), 1e-4 (finetune)"
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
        description="finetune: start from this linear fit's classifier; {} for A.8's; null: off",
    )

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

    def learning_rates(self, epoch: int) -> list[float]:
        """Return the rates of an epoch, counted from 0."""
        return [
            learning_rate(
                epoch,
                self.epochs,
                lr=lr,
                schedule=self.schedule,
                milestones=self.milestones,
                gamma=self.gamma,
            )
            for lr in self.rates
        ]

    def learning_rate(self, epoch: int) -> float:
        """Return the rate of an epoch, counted from 0, where there is one."""
        (rate,) = self.learning_rates(epoch)
        return rate

    @property
    def protocol_label(self) -> str:
        """What the board calls the protocol: what makes it another one is in its name."""
        parts = [self.protocol]
        if self.label_fraction is not None:
            parts.append(f"{100 * self.label_fraction:g}pct")
        if self.protocol == "knn":
            parts += [f"k{self.knn_k}", f"t{self.knn_temperature:g}"]
        if self.augment_views:
            parts.append(f"views{self.augment_views}")
        if len(self.rates) > 1:
            parts.append(f"best-of-{len(self.rates)}-lr")
        if self.calibration != "clean":
            parts.append(self.calibration)
        if self.train_on != "train":
            parts.append(self.train_on)
        return "-".join(parts)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = get_protocol(values.get("protocol", "linear")).defaults
        return _with_milestones(values, {"metrics": _metrics_of(values), **defaults})

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
        self._check_training()
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

    def _check_training(self) -> None:
        protocol = get_protocol(self.protocol)
        for name in ("epochs", "lr", "weight_decay"):
            if (getattr(self, name) is None) == protocol.trains:
                what = "needs" if protocol.trains else "trains nothing by SGD and has no"
                raise ValueError(
                    f"protocol {self.protocol!r} {what} {name}; nothing was scored. "
                    f"{'Give' if protocol.trains else 'Remove'} {name}."
                )
        if protocol.trains:
            _check_milestones(self.milestones, self.epochs)
        if self.chooses and self.train_on == "trainval":
            raise ValueError(
                f"{protocol.chooses} has several values, of which validation images choose one, and "
                "with train_on trainval there are none; nothing was scored. Give one value, or "
                "set train_on to train."
            )
        if len(self.rates) > 1 and protocol.chooses != "lr":
            raise ValueError(
                f"protocol {self.protocol!r} trains at one lr, not at {len(self.rates)}; nothing "
                "was scored. Give one, or choose protocol linear."
            )


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that name a job and say which rows may be compared with it."""
    policy = get_policy(recipe.policy)
    return {
        "task": "classification",
        "engine": "torch",
        "dataset": recipe.dataset,
        "split_sha256": image_set(recipe.dataset).split_sha256
        or locate(recipe.dataset, root=recipe.data_root).split_sha256,
        "protocol": recipe.protocol_label,
        "image_size": recipe.image_size,
        "policy": policy.name,
        "policy_fingerprint": policy.fingerprint,
        "method": "-",  # the checkpoint's, known once it is read
    }


def _metrics_of(values: dict[str, Any]) -> tuple[str, ...]:
    try:
        return image_set(values.get("dataset", Recipe.model_fields["dataset"].default)).metrics
    except (ValueError, AttributeError):  # no image set, which its own field will say
        return ("top1",)


def _with_milestones(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    filled = {**defaults, **values}
    if filled.get("milestones") is None:
        try:
            filled["milestones"] = default_milestones(int(filled.get("epochs")))
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
