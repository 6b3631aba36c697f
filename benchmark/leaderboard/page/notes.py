"""How to read the page: the rules, the groups and the policies."""

from typing import Any

from lowbit.benchmark.leaderboard.page import rows
from lowbit.benchmark.leaderboard.page.policies import describe_policies
from lowbit.benchmark.leaderboard.page.source import Source


def content(source: Source) -> dict[str, Any]:
    """Return what each group shares and what each policy's fingerprint stands for."""
    return {
        "groups": rows.group_facts(source.boards),
        "policies": describe_policies(source.frame),
    }
