"""Convert a backbone to other libraries' file formats."""

import io
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn

from lowbit.backbones.checkpoints.load import LoadReport, load_backbone, save_backbone
from lowbit.backbones.checkpoints.names import rename
from lowbit.backbones.checkpoints.read_file import CheckpointError, write

TARGETS = ("torchvision", "timm", "detectron2", "safetensors")

_SUFFIXES = {
    "torchvision": ".pth",
    "timm": ".pth",
    "detectron2": ".pkl",
    "safetensors": ".safetensors",
}

# Our name of each torchvision network -> torchvision's name, tensor naming, classifier attribute.
_TORCHVISION = {
    **{f"resnet{n}": (f"resnet{n}", "timm", "fc") for n in (18, 34, 50, 101, 152)},
    "mobilenetv2": ("mobilenet_v2", "torchvision_mobilenetv2", "classifier"),
    "mobilenetv2_100": ("mobilenet_v2", "torchvision_mobilenetv2", "classifier"),
    "vit_base_patch16_224": ("vit_b_16", "torchvision_vit", "heads"),
    "deit_base_patch16_224": ("vit_b_16", "torchvision_vit", "heads"),
    "vit_base_patch32_224": ("vit_b_32", "torchvision_vit", "heads"),
    "vit_large_patch16_224": ("vit_l_16", "torchvision_vit", "heads"),
}
_TIMM = {
    "mobilenetv2": "'mobilenetv2_100'",
    "vit_small_dinov2": "'vit_small_patch14_dinov2', dynamic_img_size=True",
    "vit_small_moco_v3": "'vit_small_patch16_224', num_heads=12",
}
_DETECTRON2 = tuple(f"resnet{n}" for n in (18, 34, 50, 101, 152))


@dataclass(frozen=True)
class Converted:
    """A converted file.

    Attributes:
        path: of the new file.
        sha256: of its bytes.
        usage: Python code or configuration that loads it.
        report: load report of the original file.
    """

    path: Path
    sha256: str
    usage: str
    report: LoadReport


def convert(
    path: str | Path,
    target: str,
    *,
    output: str | Path | None = None,
    architecture: str | None = None,
    prefix: str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Read any checkpoint and write its backbone, without classifier, for another library.

    Args:
        path: any file `load_backbone` accepts.
        target: one of `TARGETS`.
        output: the new file; default `<name>.<target>.<suffix>` next to the original.
        architecture: as in `load_backbone`.
        prefix: as in `load_backbone`.
        overwrite: replace an existing file.

    Raises:
        FileNotFoundError: the input file or the output folder does not exist.
        FileExistsError: the output file already exists.
        CheckpointError: the file cannot be loaded, or the target library lacks the network.
        ValueError: unknown target.
    """
    if target not in TARGETS:
        raise ValueError(
            f"there is no layout {target!r} to convert to; nothing was written. Take one of "
            f"{', '.join(TARGETS)}."
        )
    path, suffix = Path(path), _SUFFIXES[target]
    network, report = load_backbone(path, architecture, prefix=prefix)
    output = Path(output) if output else path.with_name(_default_name(path, target))
    if output.suffix != suffix:
        raise ValueError(
            f"{output} does not end in {suffix}, by which {target} knows what to read; nothing was "
            f"written. Call it {output.with_suffix(suffix).name}."
        )
    if not output.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {output.parent}; nothing was written. Make it, or name another "
            "--output."
        )
    if output.exists() and output.samefile(path):
        raise FileExistsError(
            f"{output} is the file to convert; nothing was written. Name another --output."
        )
    if output.exists() and not overwrite:
        raise FileExistsError(
            f"{output} exists; nothing was written. Add --overwrite to replace it."
        )
    writer = {"torchvision": _torchvision, "timm": _timm, "detectron2": _detectron2}.get(target)
    if writer is None:
        origin = {
            "file": path.name,
            "sha256": report.sha256,
            "layout": report.format,
            "prefix": report.prefix,
        }
        sha256 = save_backbone(output, network, {**report.meta, "converted_from": origin})
        return Converted(output, sha256, _safetensors_usage(output, report.architecture), report)
    content, usage = writer(network, output)
    return Converted(output, write(output, content), usage, report)


def _default_name(path: Path, target: str) -> str:
    stem = re.sub(r"\.(pth\.tar|[A-Za-z]+)$", "", path.name)
    middle = "" if target == "safetensors" else f".{target}"
    return f"{stem}{middle}{_SUFFIXES[target]}"


def _torchvision(network: nn.Module, output: Path) -> tuple[bytes, str]:
    if network.architecture not in _TORCHVISION:
        raise _no_such_network(network, "torchvision", tuple(_TORCHVISION))
    name, naming, classifier = _TORCHVISION[network.architecture]
    return _torch_bytes(network, naming), (
        f"net = torchvision.models.{name}()\n"
        f"net.{classifier} = torch.nn.Identity()  # the file holds no classifier\n"
        f"net.load_state_dict(torch.load({output.name!r}))"
    )


def _timm(network: nn.Module, output: Path) -> tuple[bytes, str]:
    return _torch_bytes(network, "timm"), (
        f"{_timm_line(network.architecture)}\nnet.load_state_dict(torch.load({output.name!r}))"
    )


def _timm_line(architecture: str) -> str:
    if architecture not in _TIMM and not timm.is_model(architecture):
        raise CheckpointError(
            f"timm has no {architecture}; nothing was written. Convert to safetensors, which keeps "
            "any network of this suite."
        )
    return f"net = timm.create_model({_TIMM.get(architecture, repr(architecture))}, num_classes=0)"


def _detectron2(network: nn.Module, output: Path) -> tuple[bytes, str]:
    if network.architecture not in _DETECTRON2:
        raise _no_such_network(network, "Detectron2", _DETECTRON2)
    arrays = {
        rename("detectron2", name): tensor.numpy()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")  # frozen norms, the default, lack it
    }
    data = {"model": arrays, "__author__": "lowbit-bench", "matching_heuristics": True}
    depth = network.architecture.removeprefix("resnet")
    small = ", RES2_OUT_CHANNELS: 64" if depth in ("18", "34") else ""
    return pickle.dumps(data, protocol=4), (
        f"MODEL:\n"
        f"  WEIGHTS: {output.name}\n"
        f"  RESNETS: {{DEPTH: {depth}, STRIDE_IN_1X1: False{small}}}\n"
        "  PIXEL_MEAN: [123.675, 116.280, 103.530]  # RGB, unless it was trained otherwise\n"
        "  PIXEL_STD: [58.395, 57.120, 57.375]\n"
        "INPUT: {FORMAT: RGB}"
    )


def _safetensors_usage(output: Path, architecture: str) -> str:
    return f"net, report = lowbit.backbones.load_backbone({output.name!r})  # {architecture}"


def _torch_bytes(network: nn.Module, naming: str) -> bytes:
    state = {rename(naming, name): tensor for name, tensor in network.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _no_such_network(network: nn.Module, target: str, names: tuple[str, ...]) -> CheckpointError:
    return CheckpointError(
        f"{target} has no {network.architecture}; nothing was written. It has {', '.join(names)}; "
        "safetensors keeps any network of this suite."
    )
