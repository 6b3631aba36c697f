"""Self-supervised frameworks by name, one a file."""

import pretrain.frameworks.simclr
import pretrain.frameworks.simsiam  # noqa: F401  (both register themselves)
from pretrain.frameworks.base import FRAMEWORKS, Embedding, Framework, create_framework

__all__ = ["FRAMEWORKS", "Embedding", "Framework", "create_framework"]
