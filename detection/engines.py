"""Registry of detection engines, and the choice of one."""

import importlib.util

from fvcore.common.registry import Registry

from lowbit.detection.engine_contract import Engine
from lowbit.detection.with_detectron2.install import import_detectron2, require_detectron2

ENGINES = Registry("ENGINES")
ENGINES.__doc__ = """
Registry of detection engines. Register a function without arguments that imports the framework and
returns an `Engine`; the function's name is the value of a recipe's `engine`.
"""


def resolve_engine(name: str) -> str:
    """Resolve `name` to an engine on this machine, without importing it.

    Raises:
        ImportError: detectron2 is requested but not installed; the message has the command.
    """
    if name == "auto":
        installed = importlib.util.find_spec("detectron2") is not None
        return "detectron2" if installed else "torchvision"
    if name == "detectron2":
        require_detectron2()
    return name


def get_engine(name: str) -> Engine:
    """Return the engine a recipe names, imported."""
    return ENGINES.get(resolve_engine(name))()


@ENGINES.register()
def torchvision() -> Engine:
    """torchvision.models.detection, which runs wherever torch does."""
    from lowbit.detection.with_torchvision.engine import TorchvisionEngine

    return TorchvisionEngine()


@ENGINES.register()
def detectron2() -> Engine:
    """Detectron2, which published detection protocols use."""
    import_detectron2()
    from lowbit.detection.with_detectron2.engine import Detectron2Engine

    return Detectron2Engine()
