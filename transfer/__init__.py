"""Score a frozen or fine-tuned backbone on classification, at every precision.

A recipe names a checkpoint, an image set, a protocol and the precisions; `run` gives one accuracy
a precision. What is quantized, and when, is the protocol's (`lowbit.transfer.protocols`).
"""

from lowbit.transfer.availability import missing_data
from lowbit.transfer.recipe.compute_cost import work
from lowbit.transfer.recipe.recipe import VERSION, Recipe, identity
from lowbit.transfer.stage import process_group, run

__all__ = ["VERSION", "Recipe", "identity", "missing_data", "process_group", "run", "work"]
