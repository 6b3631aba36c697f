"""What a job leaves of the networks that it scored, so that each can be made again exactly.

`scored.safetensors` holds what neither the checkpoint nor the job's training states have: the classifier
of each precision where only that was trained, and the quantizers' ranges and scales where calibration came
last, with smoothing factors and the norms that divide by them. Its metadata, under `scored`, is JSON: the facts below.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor, nn

from lowbit.backbones import LoadReport, create_backbone, load_backbone
from lowbit.backbones.checkpoints.file_formats.checked_load import load_checked
from lowbit.backbones.checkpoints.file_formats.file_bytes import read_bytes
from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.safetensors_file import read_safetensors
from lowbit.backbones.networks.video_frames import average_frames
from lowbit.common.atomic_file import atomic
from lowbit.common.file_hash import file_sha256
from lowbit.common.input_files.strict_model import StrictModel
from lowbit.common.text import printable
from lowbit.data import Center, Images, locate
from lowbit.quant import FP, Precision, get_policy, quantize, set_precision
from lowbit.quant.layers import OutputScale
from lowbit.quant.quantizers.base import Quantizer
from lowbit.quant.smoothing import Smoothing, scale_weights, smoothed_norms
from lowbit.training.seeding import seeded
from lowbit.transfer.features.views import center
from lowbit.transfer.finetuning.training import Network
from lowbit.transfer.recipe.protocol_registry import Parts
from lowbit.transfer.recipe.recipe_fields import RecipeFields

ROLE = "scored networks"  # of the artifact
FILE = "scored.safetensors"
_KEY = "scored"
_CLASSIFIER, _QUANTIZERS, _NORMS = "classifier", "quantizers", "norms"


class State(StrictModel):
    """A training state that holds a network."""

    file: str = Field(description="its path, relative to the job's folder")
    sha256: str = Field(description="of its content")


class Facts(StrictModel):
    """What the networks of a job are, and what they take as input."""

    protocol: str = Field(description="how they were trained")
    architecture: str = Field(description="the backbone's")
    checkpoint_sha256: str = Field(description="of the file that the job scored")
    allow_partial: bool = Field(description="whether that file filled only part of the backbone")
    seed: int = Field(description="of the job, from which the rest was drawn")
    precisions: tuple[str, ...] = Field(description="scored precisions")
    policy: dict[str, Any] = Field(description="which layers are quantized, and how")
    whole: bool = Field(description="whether the policy's last layer is the classifier")
    calibrated_last: bool = Field(description="whether quantizers are in this file, not the states")
    states: dict[str, State] = Field(description="trained networks by precision")
    dataset: str = Field(description="image set")
    split_sha256: str = Field(description="of its splits")
    classes: tuple[str, ...] = Field(description="its classes, in the order of the logits")
    frames: int | None = Field(description="images of a video; null: the samples are images")
    image_size: int = Field(description="side of the input, pixels")
    resize: int = Field(description="shorter side before the central crop, pixels")
    interpolation: str = Field(description="of that")
    mean: tuple[float, float, float] = Field(description="of the pixels, in 0..1, by channel")
    std: tuple[float, float, float] = Field(description="of the pixels, in 0..1, by channel")

    @property
    def view(self) -> Center:
        """The view of an image that the networks were scored on."""
        return Center(size=self.image_size, resize=self.resize, interpolation=self.interpolation)


class ScoredNetworks:
    """The networks of a finished job.

    Args:
        path: the file that the job left, beside its training states.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or no such file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            data = read_bytes(self.path)
            budget = MemoryBudget(len(data))
            stored, metadata = read_safetensors(data, budget)
            self._tensors = {name: tensor.value(budget) for name, tensor in stored.items()}
            self.facts = Facts.model_validate_json(metadata[_KEY])
        except OSError:
            raise
        except Exception as error:  # damaged bytes can raise any
            first = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"{self.path} does not hold the networks of a transfer job ({printable(first)}); nothing "
                "was loaded. Run the job again, or copy its folder again."
            ) from error

    def rebuild(self, precision: Precision | str, checkpoint: str | Path) -> Network:
        """Return the network as it was scored at a precision, in eval mode, on the CPU.

        Args:
            precision: one of those the job scored.
            checkpoint: the file that the job scored.

        Raises:
            FileNotFoundError: the checkpoint or a training state is missing.
            ValueError: the job did not score that precision, or a file is not the one that it used.
        """
        facts, name = self.facts, str(Precision.parse(precision))
        if name not in facts.precisions:
            raise ValueError(
                f"{self.path} has no network at {name}; nothing was loaded. It has "
                f"{', '.join(facts.precisions)}: take one of these, or score {name} first."
            )
        _require(Path(checkpoint), facts.checkpoint_sha256, "the checkpoint that was scored")
        with seeded(facts.seed, torch.device("cpu")):
            network = (
                self._trained(name) if name in facts.states else self._probed(name, checkpoint)
            )
        if facts.calibrated_last:
            quantize(network.backbone, facts.policy)
            self._load_quantizers(network.backbone)
            set_precision(network, name)
        if facts.frames is not None:
            average_frames(network.backbone, facts.frames)
        return network.eval().requires_grad_(False)

    def _probed(self, name: str, checkpoint: str | Path) -> Network:
        """Return the checkpoint's backbone with the classifier kept here."""
        backbone, _ = load_backbone(
            checkpoint, self.facts.architecture, allow_partial=self.facts.allow_partial
        )
        return Network(
            backbone,
            *(self._tensors[f"{_CLASSIFIER}.{name}.{part}"] for part in ("weight", "bias")),
        )

    def _trained(self, name: str) -> Network:
        """Return the network of a training state, quantized if it was trained so."""
        facts, stored = self.facts, self.facts.states[name]
        folder = self.path.resolve().parent
        path = (folder / stored.file).resolve()
        if not path.is_relative_to(folder):
            raise ValueError(f"{self.path} names a file outside its folder; nothing was loaded.")
        _require(path, stored.sha256, "the network that was scored")
        state = load_checked(path)["network"]
        classifier = (torch.zeros_like(state[f"fc.{part}"]) for part in ("weight", "bias"))
        network = Network(create_backbone(facts.architecture), *classifier)
        if not facts.calibrated_last and name != str(FP):
            precision = Precision.parse(name)
            if facts.whole:
                network.quantize(facts.policy, precision)
            else:
                quantize(network.backbone, facts.policy, precision)
        network.load_state_dict(state)
        return network

    def _load_quantizers(self, backbone: nn.Module) -> None:
        prefix = f"{_QUANTIZERS}."
        kept = {
            name.removeprefix(prefix): tensor
            for name, tensor in self._tensors.items()
            if name.startswith(prefix)
        }
        wanted = _quantizer_state(backbone)
        if kept.keys() != wanted.keys():
            other = sorted(kept.keys() ^ wanted.keys())
            raise ValueError(
                f"{self.path} has the quantizers of another network ({printable(other[0])}); nothing was "
                "loaded. Run the job again with this version."
            )
        backbone.load_state_dict(kept, strict=False)
        prefix = f"{_NORMS}."
        norms = {
            name.removeprefix(prefix): tensor
            for name, tensor in self._tensors.items()
            if name.startswith(prefix)
        }
        backbone.load_state_dict(norms, strict=False)
        scale_weights(backbone)


def write_scored(
    folder: Path, parts: Parts, *, recipe: RecipeFields, report: LoadReport, train: Images
) -> str:
    """Write what a job leaves of its networks into its folder; return the file's name.

    Args:
        folder: of the job.
        parts: what its protocol says the networks are made of.
        recipe: of the job.
        report: of its checkpoint.
        train: its training images.
    """
    spec, view = locate(recipe.dataset, root=recipe.data_root), center(recipe)
    facts = Facts(
        protocol=recipe.protocol,
        architecture=report.architecture,
        checkpoint_sha256=report.sha256,
        allow_partial=recipe.allow_partial,
        seed=recipe.seed,
        precisions=tuple(map(str, recipe.precisions)),
        policy=json.loads(json.dumps(get_policy(recipe.policy).to_dict())),
        whole=parts.whole,
        calibrated_last=parts.calibrated is not None,
        states={
            str(precision): State(file=file, sha256=file_sha256(folder / file))
            for precision, file in parts.states.items()
        },
        dataset=recipe.dataset,
        split_sha256=train.split_sha256,
        classes=train.classes,
        frames=train.frames,
        image_size=view.size,
        resize=view.resize,
        interpolation=view.interpolation,
        mean=spec.mean,
        std=spec.std,
    )
    tensors = {
        f"{_CLASSIFIER}.{precision}.{part}": tensor
        for precision, head in parts.heads.items()
        for part, tensor in zip(("weight", "bias"), head, strict=True)
    }
    if parts.calibrated is not None:
        state = _quantizer_state(parts.calibrated)
        tensors |= {f"{_QUANTIZERS}.{name}": tensor for name, tensor in state.items()}
        for name, norm in smoothed_norms(parts.calibrated).items():
            tensors |= norm.state_dict(prefix=f"{_NORMS}.{name}.")
    plain = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    with atomic(folder / FILE) as file:
        file.write(save(plain, metadata={_KEY: facts.model_dump_json()}))
    return FILE


def _quantizer_state(model: nn.Module) -> Mapping[str, Tensor]:
    """Return the tensors of a network's quantizers, output scales and smoothings by their names in it."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Quantizer | OutputScale | Smoothing):
            found |= module.state_dict(prefix=f"{name}.")
    return found


def _require(path: Path, sha256: str, what: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, {what}; nothing was loaded. Restore it.")
    if file_sha256(path) != sha256:
        raise ValueError(
            f"{path} is not {what}: its SHA-256 is another; nothing was loaded. Give the file that the "
            "job used."
        )
