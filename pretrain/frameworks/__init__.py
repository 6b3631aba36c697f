"""Self-supervised frameworks by name, one a file."""

from pretrain.frameworks import byol, moco_v2, moco_v3, simclr, simsiam  # noqa: F401  (register)
from pretrain.frameworks.base import FRAMEWORKS, Embedding, Framework, create_framework

__all__ = ["FRAMEWORKS", "Embedding", "Framework", "create_framework"]
