"""Make backbones: self-supervised frameworks times pairings of views and precisions.

A recipe names a framework (SimSiam, SimCLR, BYOL, MoCo v2, MoCo v3), a pairing (plain, SSQL,
Contrastive Quant's) and a network; `run` trains it and leaves a backbone file.
"""

from pretrain.availability import missing_data
from pretrain.distributed import process_group
from pretrain.recipe import VERSION, Recipe, identity
from pretrain.stage import run
from pretrain.work import work

__all__ = [
    "VERSION",
    "Recipe",
    "identity",
    "missing_data",
    "process_group",
    "run",
    "work",
]
