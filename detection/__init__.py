"""Score a backbone on object detection, in full precision and quantized, with either engine.

A recipe names a backbone checkpoint (or a detector trained from one), a method and a precision;
`run` returns AP, AP50 and AP75. Detectron2 is imported only when a recipe's engine is detectron2.
"""

from lowbit.detection.compute_cost import work
from lowbit.detection.recipe import Recipe
from lowbit.detection.stage import VERSION, identity, missing_data, process_group, run

__all__ = ["VERSION", "Recipe", "identity", "missing_data", "process_group", "run", "work"]
