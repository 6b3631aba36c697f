"""Validated recipe of a deploy job, and the job's identity."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from lowbit.backbones.precision_field import PrecisionField
from lowbit.common.compute_cost import Work
from lowbit.common.input_files.strict_model import StrictModel
from lowbit.data import image_set, locate, missing_images
from lowbit.deploy.processor import this_processor
from lowbit.deploy.saturation import products
from lowbit.deploy.subject import checked_precision
from lowbit.export.runtime import RuntimeMissingError, get_runtime
from lowbit.quant import Precision, get_policy

VERSION = 1  # raised when the same recipe measures something else


class Recipe(StrictModel):
    """Which networks to run, and in what.

    A suite fills in `checkpoint`, `networks` and what describes them from the transfer entry that made
    the networks.
    """

    cosmetic: ClassVar[frozenset[str]] = frozenset({"name", "data_root", "num_workers"})

    name: str = Field("deploy", description="job's name in logs")
    checkpoint: str = Field(description="backbone file that the networks were made of")
    networks: str = Field(description="scored.safetensors of a transfer job")
    protocol: str = Field("linear", description="that job's protocol, as the board names it")
    dataset: str = Field("digits", description="its image set")
    image_size: int = Field(32, ge=1, description="side of its networks' input, pixels")
    policy: str | dict[str, Any] = Field("ssql", description="its policy")
    seed: int = Field(0, ge=0, description="its seed")
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

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        get_policy(value)
        return value

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        image_set(value)
        return value


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the facts that identify a job: what was run, in which runtime, on which processor.

    Raises:
        ImportError: the runtime is not installed.
    """
    policy, processor = get_policy(recipe.policy), this_processor()
    return {
        "task": "deployment",
        "engine": f"{recipe.runtime} {get_runtime(recipe.runtime).version()}",
        "processor": processor.model,
        "instruction_set": processor.instruction_set,
        "cores": processor.cores,
        "products": products(recipe.runtime),
        "dataset": recipe.dataset,
        "split_sha256": image_set(recipe.dataset).split_sha256
        or locate(recipe.dataset, root=recipe.data_root).split_sha256,
        "protocol": recipe.protocol,
        "image_size": recipe.image_size,
        "policy": policy.name,
        "policy_fingerprint": policy.fingerprint,
        "policy_on_board": False,  # a faster policy may be what is looked for
        "method": "-",  # the checkpoint's
    }


def missing_data(recipe: Recipe) -> str | None:
    """Return how to get missing images, or a missing runtime, without which the job is skipped."""
    try:
        get_runtime(recipe.runtime)
    except RuntimeMissingError as error:
        return str(error)
    return missing_images(recipe.dataset, "test", root=recipe.data_root)


def work(recipe: Recipe) -> Work | None:
    """Return None: counted operations say nothing of the time of a job.

    Most of it goes into exporting, loading and starting processes, and into rounds of timing whose length is
    fixed; the rest runs in the very kernels whose speed is to be found. A job of the same recipe and
    architecture that has run before says it (`lowbit.benchmark.scheduling.estimate`).
    """
    return None
