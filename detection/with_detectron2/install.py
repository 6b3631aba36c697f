"""Check for Detectron2, say how to install it, and import it."""

import importlib
import importlib.util
import os
import warnings

from lowbit.data.image_sets.spec import ROOT_VARIABLE
from lowbit.detection.datasets.catalog import DETECTRON2_ROOT

INSTALL_DETECTRON2 = (
    'pip install --no-build-isolation "detectron2 @ git+https://github.com/facebookresearch/'
    'detectron2.git@02b5c4e295e990042a714712c21dc79b731e8833"'
)


def require_detectron2() -> None:
    """Raise an error with the install command if Detectron2 is missing."""
    if importlib.util.find_spec("detectron2") is None:
        raise ImportError(
            "Detectron2 is not installed; no detector was built. It is not on PyPI: install it "
            f"with `{INSTALL_DETECTRON2}`, or use engine torchvision."
        )


def import_detectron2() -> None:
    """Import Detectron2, which must be installed, without the warnings that torch raises about it.

    Its own data sets are looked for in `$DETECTRON2_DATASETS`, or else `$LOWBIT_DATA`. Two warnings
    that need no action are hidden by their text.
    """
    require_detectron2()
    if os.environ.get(
        ROOT_VARIABLE
    ):  # read when detectron2.data is imported; an existing value is kept
        os.environ.setdefault(DETECTRON2_ROOT, os.environ[ROOT_VARIABLE])
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
    importlib.import_module("detectron2.engine")
