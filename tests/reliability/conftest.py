"""Reliability under attack: how many rounds, from which seed, and a table of what was tried."""

import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from tests.benchmark.conftest import bench  # noqa: F401  a fixture

_TALLY = pytest.StashKey["Tally"]()


@dataclass
class Tally:
    """Counts of what was tried, by kind, of what failed, and the largest memory that it took."""

    tried: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    memory: dict[str, float] = field(default_factory=dict)  # MiB

    def add(self, kind: str, tried: int = 1, failed: int = 0, memory: float | None = None) -> None:
        self.tried[kind] += tried
        self.failed[kind] += failed
        if memory is not None:
            self.memory[kind] = max(memory, self.memory.get(kind, 0.0))

    def lines(self) -> list[str]:
        rows = ["| kind | tried | failed | peak memory |", "|---|---:|---:|---:|"]
        for kind, tried in self.tried.items():
            memory = f"{self.memory[kind]:.0f} MiB" if kind in self.memory else ""
            rows.append(f"| {kind} | {tried:,} | {self.failed[kind]:,} | {memory} |")
        return rows


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption("--rounds", type=float, default=1.0, help="multiple of the usual attempts")
    group.addoption("--attack-seed", type=int, default=0, help="seed of the attempts")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Tally()


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    tally = config.stash[_TALLY]
    if tally.tried:
        terminalreporter.section("reliability")
        terminalreporter.write_line("\n".join(tally.lines()))


@pytest.fixture
def tally(request) -> Tally:
    return request.config.stash[_TALLY]


@pytest.fixture
def rounds(request):
    """Return how many rounds to make of the usual number."""
    factor = request.config.getoption("--rounds", 1.0)
    return lambda usual: max(1, round(factor * usual))


@pytest.fixture
def rng(request) -> random.Random:
    """Random numbers of this test's own, from one seed."""
    seed = request.config.getoption("--attack-seed", 0)
    return random.Random(f"{seed} {request.node.nodeid.rpartition('/')[2]}")
