"""Files of adaptive networks: one stored model for all bit-widths."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.backbones.checkpoints.file_formats.checked_load import load_checked
from lowbit.common.atomic_file import atomic
from lowbit.common.text import printable
from lowbit.quant import get_policy, quantized_layers
from lowbit.quant.adaptive import load_nested, nested_state
from lowbit.transfer.finetuning.training import Network

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe

STORED = "stored"


def write_nested(path: Path, network: Network, *, recipe: "Recipe") -> str:
    """Write a network as the codes of its highest bit-width; return `STORED`, or the reason if it was not stored."""
    if not all(layer.w_quant.has_nested_codes for layer in quantized_layers(network).values()):
        return (
            f"not stored: codes of policy {get_policy(recipe.policy).name} at one bit-width do not "
            "contain those at lower ones; coquant's do"
        )
    stored = nested_state(network, recipe.policy, recipe.adaptive.bits)
    stored["architecture"] = getattr(network.backbone, "architecture", None)
    with atomic(path) as file:
        torch.save(stored, file)
    return STORED


def read_nested(path: str | Path, backbone: nn.Module | None = None) -> Network:
    """Return the network in a file, at its highest bit-width; `lowbit.quant.set_precision` sets a lower one.

    Args:
        path: `nested.pth` of an adaptive job.
        backbone: full precision, of the stored architecture; default by its name.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has another format, or no architecture is stored or given.
    """
    try:
        stored = load_checked(path)
        weight, bias = (stored["state"][f"fc.{name}"] for name in ("weight", "bias"))
        architecture = stored["architecture"]
    except OSError:
        raise
    except Exception as error:  # damaged bytes can raise any
        raise ValueError(
            f"{path} is not an adaptive network ({printable(str(error))}); nothing was loaded. Give "
            "the nested.pth of a finished adaptive job."
        ) from error
    if backbone is None:
        backbone = create_backbone(architecture)
    return load_nested(Network(backbone, weight, bias), stored)
