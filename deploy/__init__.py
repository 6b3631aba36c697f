"""Run the networks of transfer and detection jobs as integer graphs here, and measure what they cost.

A recipe names the networks that a transfer job left, or the detector of a detection job, the precisions and
a runtime; `run` gives, at each precision, the bytes, the latency beside full precision in the same runtime,
the layers that are really computed on integers, and how far predictions agree with the simulation.
"""

from lowbit.deploy.recipe import VERSION, Recipe, identity, missing_data, work
from lowbit.deploy.stage import process_group, run

__all__ = ["VERSION", "Recipe", "identity", "missing_data", "process_group", "run", "work"]
