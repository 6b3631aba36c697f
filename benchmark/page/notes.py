"""How to read the page: the rules, the groups and the policies."""

from typing import Any

from benchmark.page import rows
from benchmark.page.policies import describe_policies
from benchmark.page.source import Source


def content(source: Source) -> dict[str, Any]:
    """Return what each group shares and what each policy's fingerprint stands for."""
    return {
        "groups": rows.group_facts(source.boards),
        "policies": describe_policies(source.frame),
    }
