"""Score a frozen or fine-tuned backbone on classification, at every precision.

A recipe names a checkpoint, an image set, a protocol and the precisions; `run` gives one accuracy
a precision. What is quantized, and when, is the protocol's (`transfer.protocols`).
"""

from transfer.availability import missing_data
from transfer.recipe import VERSION, Recipe, identity
from transfer.stage import run
from transfer.work import work

__all__ = ["VERSION", "Recipe", "identity", "missing_data", "run", "work"]
