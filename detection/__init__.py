"""Score a backbone on object detection, in full precision and quantized, with either engine.

A recipe names a backbone checkpoint (or a detector trained from one), a method and a precision;
`run` returns AP, AP50 and AP75. Detectron2 is imported only when a recipe's engine is detectron2.
"""

import importlib
from typing import Any

_WHERE = {  # imported on first use: `scoring/` needs no torch
    "VERSION": "stage",
    "Recipe": "recipe",
    "identity": "stage",
    "missing_data": "stage",
    "process_group": "stage",
    "run": "stage",
    "work": "compute_cost",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
