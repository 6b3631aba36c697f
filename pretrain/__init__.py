"""Pretrain backbones with self-supervised frameworks and pairings of views and precisions.

A recipe names a framework (SimSiam, SimCLR, BYOL, MoCo v2, MoCo v3), a pairing (plain, SSQL,
Contrastive Quant's) and a network; `run` trains it and writes a backbone file.
"""

from lowbit.pretrain.compute_cost import work
from lowbit.pretrain.recipe import VERSION, Recipe, identity
from lowbit.pretrain.stage import missing_data, run
from lowbit.training.distributed import process_group

__all__ = [
    "VERSION",
    "Recipe",
    "identity",
    "missing_data",
    "process_group",
    "run",
    "work",
]
