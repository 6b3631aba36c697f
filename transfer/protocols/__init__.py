"""Protocols by name: what is trained, what is quantized, and in which order."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fvcore.common.registry import Registry
from torch import Tensor

from lowbit.common.suggest import did_you_mean
from lowbit.data import Images

PROTOCOLS = Registry("PROTOCOLS")
PROTOCOLS.__doc__ = """
Registry of transfer protocols. Register with `@protocol(...)` a function

    name(backbone: nn.Module, train: Images, *, recipe: Recipe, workspace: Workspace,
         device: torch.device) -> Fitted

that learns from the labelled training images and returns how to predict. It is never handed other
labels: nothing can be chosen on the images it is scored on. One that chooses among several values
of a recipe's field names that field (`chooses`) and is handed `val: Images` as well, in jobs that
give several; what it chose stands in its details. One that `watches` is handed `val` in every job,
None where there is none: it logs accuracies on it and chooses nothing. It may change `backbone`, calls
`workspace.resume()` before anything else it trains, and gives the same result bit for bit when
called again with the same arguments. The function's name, with dashes, is the recipe's `protocol`.
"""


@dataclass(frozen=True)
class Fitted:
    """What a protocol hands back.

    `predict` takes images to the predicted classes (N,) of all of them at every precision of the
    recipe. `details` is any JSON; `artifacts` are files in the job's folder by role.
    """

    predict: Callable[[Images], dict[str, Tensor]]
    details: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """A registered protocol.

    Attributes:
        fit: learns and returns how to predict.
        defaults: published values of the recipe's fields.
        options: the recipe's fields that mean something in few protocols, this one among them.
        chooses: the recipe's field among whose values it chooses on validation images.
        watches: whether it logs accuracies on validation images while it trains.
    """

    name: str
    fit: Callable[..., Fitted]
    defaults: dict[str, Any]
    options: frozenset[str]
    chooses: str | None
    watches: bool

    @property
    def trains(self) -> bool:
        """Whether it learns by SGD, and so has epochs and a rate."""
        return "epochs" in self.defaults


def protocol(
    *,
    options: tuple[str, ...] = (),
    chooses: str | None = None,
    watches: bool = False,
    **defaults: Any,
) -> Callable:
    """Register a function as a protocol.

    Args:
        options: fields of the recipe that mean nothing in protocols that do not name them.
        chooses: field of the recipe that may have several values to choose from.
        watches: whether the function is handed `val` to log accuracies on.
        defaults: values of the recipe's fields where a recipe leaves them out.
    """

    def register(fit: Callable[..., Fitted]) -> Callable[..., Fitted]:
        name = fit.__name__.replace("_", "-")
        known = Protocol(name, fit, defaults, frozenset(options), chooses, watches)
        PROTOCOLS._do_register(name, known)
        return fit

    return register


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        ValueError: there is none of that name.
    """
    if str(name) not in PROTOCOLS:
        names = sorted(known for known, _ in PROTOCOLS)
        raise ValueError(
            f"there is no transfer protocol {name!r}; nothing was scored."
            f"{did_you_mean(name, names)} Known protocols: {', '.join(names)}."
        )
    return PROTOCOLS.get(str(name))


def options_of_others(name: str) -> list[str]:
    """Return the recipe's fields that mean something only in other protocols than `name`."""
    others = set().union(*(p.options for known, p in PROTOCOLS if known != name))
    return sorted(others - get_protocol(name).options)


for _module in pkgutil.iter_modules(__path__):  # each file here registers its protocol
    importlib.import_module(f"{__name__}.{_module.name}")
