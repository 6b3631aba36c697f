"""Validated recipe of a deploy job, and the job's identity."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lowbit.backbones.precision_field import PrecisionField
from lowbit.common.compute_cost import Work
from lowbit.common.input_files.strict_model import StrictModel
from lowbit.data import image_set, locate, missing_images
from lowbit.deploy.processor import this_processor
from lowbit.deploy.saturation import products
from lowbit.deploy.subject import checked_precision
from lowbit.detection.recipe import Recipe as DetectionRecipe
from lowbit.detection.stage import identity as detection_identity
from lowbit.detection.stage import missing_data as missing_annotations
from lowbit.export.runtime import RuntimeMissingError, get_runtime
from lowbit.quant import Precision, get_policy

VERSION = 1  # raised when the same recipe measures something else


class Recipe(StrictModel):
    """Which networks to run, and in what.

    A suite fills in the files, and what describes them, from the entry that made them: of a transfer entry
    `checkpoint`, `networks` and the five fields behind them, of a detection entry `detector` and `detection`.
    """

    cosmetic: ClassVar[frozenset[str]] = frozenset({"name", "data_root", "num_workers"})

    name: str = Field("deploy", description="job's name in logs")
    checkpoint: str | None = Field(None, description="backbone file that it all was made of")
    networks: str | None = Field(None, description="scored.safetensors of a transfer job")
    protocol: str = Field("linear", description="that job's protocol, as the board names it")
    dataset: str = Field("digits", description="its image set")
    image_size: int | None = Field(32, ge=1, description="side of its networks' input, pixels")
    policy: str | dict[str, Any] | None = Field("ssql", description="its policy")
    seed: int = Field(0, ge=0, description="its seed")
    detector: str | None = Field(
        None, description="detector.pth or calibrated.pth of a detection job, instead of networks"
    )
    detection: dict[str, Any] | None = Field(
        None, description="that job's recipe, without its files; the fields above are then its own"
    )
    data_root: str | None = Field(None, description="folder of the sets; null: $LOWBIT_DATA")

    precisions: tuple[PrecisionField, ...] = Field(
        tuple(map(Precision.parse, ("FP", "8w8a", "4w4a"))),
        min_length=1,
        description="precisions to run, of those that job scored",
    )
    runtime: Literal["openvino", "onnxruntime"] = Field("openvino", description="what runs graphs")
    rounds: int = Field(
        60, ge=5, description="of timing, each some milliseconds of a graph and of full precision"
    )
    agreement_images: int = Field(
        1000, ge=1, description="test images on which predictions are compared with the simulation"
    )
    num_workers: int | None = Field(None, ge=0, description="processes that decode image files")

    @field_validator("precisions")
    @classmethod
    def _exportable(cls, value: tuple[Precision, ...]) -> tuple[Precision, ...]:
        for precision in value:
            checked_precision(precision)
        if len(set(value)) < len(value):
            raise ValueError("a precision is listed twice; nothing was measured. List each once.")
        return value

    @model_validator(mode="before")
    @classmethod
    def _described_by_detection(cls, fields: Any) -> Any:
        """Take what describes a detector from its recipe."""
        if not isinstance(fields, dict) or not isinstance(fields.get("detection"), dict):
            return fields
        made = DetectionRecipe(**fields["detection"])
        own = {"dataset": made.dataset, "protocol": made.meta_architecture, "seed": made.seed}
        return {**fields, **own, "image_size": None, "policy": made.policy}

    @model_validator(mode="after")
    def _one_source(self) -> "Recipe":
        if (self.networks is None) == (self.detector is None):
            raise ValueError(
                "a deploy job runs either the `networks` of a transfer job or the `detector` of a detection "
                "job; nothing was measured. Give one of them."
            )
        if (self.detector is None) != (self.detection is None):
            raise ValueError(
                "`detector` and `detection`, the recipe that made it, belong together; nothing was measured. "
                "Give both, or neither."
            )
        if self.detection is not None:
            return self
        if self.checkpoint is None:
            raise ValueError(
                "the networks of a transfer job need the `checkpoint` that they were made of; nothing was "
                "measured. Give its file."
            )
        if self.image_size is None or self.policy is None:
            raise ValueError(
                "the networks of a transfer job have an image_size and a policy; nothing was measured. Give "
                "those of that job."
            )
        get_policy(self.policy)
        image_set(self.dataset)
        return self

    @property
    def detection_recipe(self) -> DetectionRecipe:
        """The recipe of the detector, on this machine's CPU."""
        here = {"data_root": self.data_root, "device": "cpu"}
        return DetectionRecipe(**{**self.detection, **here})


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that identify a job: what was run, in which runtime, on which processor.

    Raises:
        ImportError: the runtime is not installed.
    """
    processor = this_processor()
    machine = {
        "task": "deployment",
        "engine": f"{recipe.runtime} {get_runtime(recipe.runtime).version()}",
        "processor": processor.model,
        "instruction_set": processor.instruction_set,
        "cores": processor.cores,
        "products": products(recipe.runtime),
        "policy_on_board": False,  # a faster policy may be what is looked for
        "method": "-",  # the checkpoint's
    }
    return (_of_networks(recipe) if recipe.detection is None else _of_detector(recipe)) | machine


def _of_networks(recipe: Recipe) -> dict[str, Any]:
    policy = get_policy(recipe.policy)
    return {
        "dataset": recipe.dataset,
        "split_sha256": image_set(recipe.dataset).split_sha256
        or locate(recipe.dataset, root=recipe.data_root).split_sha256,
        "protocol": recipe.protocol,
        "image_size": recipe.image_size,
        "policy": policy.name,
        "policy_fingerprint": policy.fingerprint,
    }


def _of_detector(recipe: Recipe) -> dict[str, Any]:
    """Return the facts of the detection job; detectors of two engines are never compared."""
    facts = detection_identity(recipe.detection_recipe)
    return {**facts, "protocol": f"{facts['protocol']} of {facts['engine']}"}


def missing_data(recipe: Recipe) -> str | None:
    """Return how to get missing images, or a missing runtime, without which the job is skipped."""
    try:
        get_runtime(recipe.runtime)
    except RuntimeMissingError as error:
        return str(error)
    if recipe.detection is not None:
        return missing_annotations(recipe.detection_recipe)
    return missing_images(recipe.dataset, "test", root=recipe.data_root)


def work(recipe: Recipe) -> Work | None:
    """Return None: counted operations say nothing of the time of a job.

    Most of it goes into exporting, loading and starting processes, and into rounds of timing whose length is
    fixed; the rest runs in the very kernels whose speed is to be found. A job of the same recipe and
    architecture that has run before says it (`lowbit.benchmark.scheduling.estimate`).
    """
    return None
