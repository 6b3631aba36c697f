"""Registry of transfer protocols and of the recipe fields each one uses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fvcore.common.registry import Registry
from torch import Tensor, nn

from lowbit.common.compute_cost import Work
from lowbit.common.suggest import did_you_mean
from lowbit.data import Images
from lowbit.quant import Precision

PROTOCOLS = Registry("PROTOCOLS")
PROTOCOLS.__doc__ = """
Registry of transfer protocols. Register with `@protocol(...)` a function

    name(backbone: nn.Module, train: Images, *, recipe: Recipe, workspace: Workspace,
         device: torch.device) -> Fitted

that learns from the labelled training images and returns how to predict. It never receives other
labels, so nothing can be chosen on the images it is scored on. One that chooses among several values
of a recipe's field names that field (`chooses`) and also receives `val: Images`, in jobs that
give several; its details include the choice. One that `watches` receives `val` in every job,
None if there is none: it logs accuracies on it and chooses nothing. It may change `backbone`, calls
`workspace.resume()` before anything else it trains, and gives the same result bit for bit when
called again with the same arguments. The function's name, with dashes, is the recipe's `protocol`.
"""


@dataclass(frozen=True)
class Parts:
    """What the networks that a protocol scored are made of, for them to be made again.

    Attributes:
        heads: classifier of each precision, weight (C, D) and bias (C,), on the checkpoint's backbone.
        states: file in the job's folder with the trained network, by precision, in place of `heads`.
        calibrated: the backbone, where its calibration came last; None: the states have their
            quantizers.
        whole: whether the policy's rule for last layers applies to the classifier.
    """

    heads: Mapping[Precision, tuple[Tensor, Tensor]] = field(default_factory=dict)
    states: Mapping[Precision, str] = field(default_factory=dict)
    calibrated: nn.Module | None = None
    whole: bool = False


@dataclass(frozen=True)
class Fitted:
    """Result of a protocol.

    `predict` maps images to the predicted classes (N,) of all of them at every precision of the
    recipe. `networks` are the modules that it runs images through, to measure rounding; they may be
    left out. `details` is any JSON; `artifacts` are files in the job's folder by role. `parts` are None
    where no network predicts, as in nearest neighbours. `logits` maps images to the logits (N, C) that
    `predict` takes the highest of; a protocol that `ranks` has it.
    """

    predict: Callable[[Images], dict[str, Tensor]]
    details: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    parts: Parts | None = None
    networks: Sequence[nn.Module] = ()
    logits: Callable[[Images], dict[str, Tensor]] | None = None


@dataclass(frozen=True)
class Protocol:
    """A registered protocol.

    Attributes:
        fit: learns and returns how to predict.
        defaults: published values of the recipe's fields.
        options: the recipe's fields that apply to few protocols, including this one.
        chooses: the recipe's field whose value it chooses on validation images.
        ranks: whether it gives logits, from which classes can be ranked (mAP).
        watches: whether it logs accuracies on validation images while it trains.
        cost: counts its work from `lowbit.transfer.recipe.compute_cost.CostInputs`; None: unknown
            before it has run.
    """

    name: str
    fit: Callable[..., Fitted]
    defaults: dict[str, Any]
    options: frozenset[str]
    chooses: str | None
    watches: bool
    ranks: bool
    cost: Callable[..., Work] | None

    @property
    def trains(self) -> bool:
        """Whether it trains with SGD, and so has epochs and a learning rate."""
        return "epochs" in self.defaults


def protocol(
    *,
    options: tuple[str, ...] = (),
    chooses: str | None = None,
    watches: bool = False,
    ranks: bool = False,
    cost: Callable[..., Work] | None = None,
    **defaults: Any,
) -> Callable:
    """Register a function as a protocol.

    Args:
        options: fields of the recipe that apply only to protocols that name them.
        chooses: field of the recipe that may have several values to choose from.
        ranks: whether what the function returns has logits.
        watches: whether the function receives `val` to log accuracies on.
        cost: counts the work of a recipe, for planning.
        defaults: values of the recipe's fields where a recipe leaves them out.
    """

    def register(fit: Callable[..., Fitted]) -> Callable[..., Fitted]:
        name = fit.__name__.replace("_", "-")
        known = Protocol(name, fit, defaults, frozenset(options), chooses, watches, ranks, cost)
        PROTOCOLS._do_register(name, known)
        return fit

    return register


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        ValueError: unknown protocol.
    """
    if str(name) not in PROTOCOLS:
        names = sorted(known for known, _ in PROTOCOLS)
        raise ValueError(
            f"there is no transfer protocol {name!r}; nothing was scored."
            f"{did_you_mean(name, names)} Known protocols: {', '.join(names)}."
        )
    return PROTOCOLS.get(str(name))


def options_of_others(name: str) -> list[str]:
    """Return the recipe's fields that apply only to protocols other than `name`."""
    others = set().union(*(p.options for known, p in PROTOCOLS if known != name))
    return sorted(others - get_protocol(name).options)
