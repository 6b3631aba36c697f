"""Write YAML that is read as the same values, here and by YAML 1.1."""

import re
from typing import Any

import yaml

# PyYAML's own dumper is ten times slower than libyaml's, which not every build includes.
_Base = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):
    """Quotes text that is a number in YAML 1.2 as well, such as 1e-3, 08 and 0o10."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+)$"),
    list("-+.0123456789"),
)


def to_yaml(value: Any, *, sort_keys: bool = False) -> str:
    """Return plain data as YAML.

    Example:
        >>> print(to_yaml({"lr": 1e-3, "name": "1e-3", "seed": 8}), end="")
        lr: 0.001
        name: '1e-3'
        seed: 8
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True)
