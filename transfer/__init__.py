"""Score a frozen or fine-tuned backbone on classification, at every precision.

A recipe names a checkpoint, an image set, a protocol and the precisions; `run` gives one accuracy
per precision. The protocol (`lowbit.transfer.protocols`) defines what is quantized, and when.
"""

import lowbit.transfer.protocols  # noqa: F401  (registers them)
from lowbit.transfer.recipe.compute_cost import work
from lowbit.transfer.recipe.recipe import VERSION, Recipe, identity
from lowbit.transfer.stage import missing_data, process_group, run

__all__ = ["VERSION", "Recipe", "identity", "missing_data", "process_group", "run", "work"]
