"""The protocols, one a file: what is trained, what is quantized, and in which order."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):  # each file here registers its protocol
    importlib.import_module(f"{__name__}.{_module.name}")
