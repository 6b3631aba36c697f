"""The detector frameworks a recipe can name, and the choice among them."""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from fvcore.common.registry import Registry
from torch import nn

from lowbit.data.image_sets.spec import ROOT_VARIABLE
from lowbit.detection.datasets.catalog import DETECTRON2_ROOT
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.detector.initial_weights import Start
from lowbit.detection.recipe import Recipe

INSTALL_DETECTRON2 = (
    'pip install --no-build-isolation "detectron2 @ git+https://github.com/facebookresearch/'
    'detectron2.git@02b5c4e295e990042a714712c21dc79b731e8833"'
)

ENGINES = Registry("ENGINES")
ENGINES.__doc__ = """
Registry of detection engines. Register a function without arguments that imports the framework and
returns an `Engine`; the function's name is what a recipe's `engine` says.
"""


class Engine(Protocol):
    """A detector framework. Rows of different engines never share a ranking."""

    name: str

    def build(self, recipe: Recipe, start: Start, *, classes: int) -> nn.Module:
        """Build the recipe's detector around a fresh network of `start.architecture`."""

    def train(
        self,
        recipe: Recipe,
        start: Start,
        images: DetectionSet,
        folder: Path,
        *,
        evaluate: Callable[[nn.Module], dict[str, float]],
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Train, going on from what a killed run left in `folder`; return detector and details.

        After the iterations of `evaluate_at`, but the last, `evaluate` scores the detector.
        """

    def inputs(self, images: DetectionSet, places: Iterable[int], recipe: Recipe) -> list:
        """Return the images at `places` as the engine's detectors take them in inference."""

    def predict(
        self, detector: nn.Module, images: DetectionSet, recipe: Recipe
    ) -> list[dict[str, Any]]:
        """Detect in all images of a set; return COCO's result format, with the set's own ids."""


def resolve_engine(name: str) -> str:
    """Return the engine that `name` means on this machine, without importing it.

    Raises:
        ImportError: detectron2 is asked for and not installed; the message has the command.
    """
    if name == "auto":
        installed = importlib.util.find_spec("detectron2") is not None
        return "detectron2" if installed else "torchvision"
    if name == "detectron2":
        require_detectron2()
    return name


def require_detectron2() -> None:
    """Refuse to go on without Detectron2, with the command that installs it."""
    if importlib.util.find_spec("detectron2") is None:
        raise ImportError(
            "Detectron2 is not installed; no detector was built. It is not on PyPI: install it "
            f"with `{INSTALL_DETECTRON2}`, or use engine torchvision."
        )


def import_detectron2() -> None:
    """Import Detectron2, which has to be there, without the warnings it draws from torch.

    Its own data sets are looked for under `$DETECTRON2_DATASETS`, or else `$LOWBIT_DATA`. Hidden by
    their text are two that nobody here can act on.
    """
    require_detectron2()
    if os.environ.get(ROOT_VARIABLE):  # read when detectron2.data is imported; what is set stays
        os.environ.setdefault(DETECTRON2_ROOT, os.environ[ROOT_VARIABLE])
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
    importlib.import_module("detectron2.engine")


def get_engine(name: str) -> Engine:
    """Return the engine a recipe names, imported."""
    return ENGINES.get(resolve_engine(name))()


@ENGINES.register()
def torchvision() -> Engine:
    """torchvision.models.detection: runs wherever torch does."""
    from lowbit.detection.with_torchvision.engine import TorchvisionEngine

    return TorchvisionEngine()


@ENGINES.register()
def detectron2() -> Engine:
    """Detectron2, in which published detection protocols are written."""
    import_detectron2()
    from lowbit.detection.with_detectron2.engine import Detectron2Engine

    return Detectron2Engine()
