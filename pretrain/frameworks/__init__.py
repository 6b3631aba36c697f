"""Self-supervised frameworks by name, one a file."""

from lowbit.pretrain.frameworks import byol, moco_v2, moco_v3, simclr, simsiam  # noqa: F401  (register)
from lowbit.pretrain.frameworks.base import FRAMEWORKS, Embedding, Framework, create_framework
from lowbit.pretrain.frameworks.options import FrameworkOptions

__all__ = ["FRAMEWORKS", "Embedding", "Framework", "FrameworkOptions", "create_framework"]
