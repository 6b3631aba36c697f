"""Executors, which run a schedule's jobs. Each is a module with

    run(schedule, *, workers: int | None, report: Callable[[Job, Result], None]) -> None

that returns when every job it can run has ended, calls `report` for each as it ends, and raises
`StoppedError` if a signal ends it early; jobs that ended always have their results.
"""

import importlib
from types import ModuleType

from lowbit.common.suggest import did_you_mean

EXECUTORS = ("local", "ray")


class StoppedError(Exception):
    """A signal, `signum`, ended the run."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


def get_executor(name: str) -> ModuleType:
    """Import the executor `name`."""

    from lowbit.benchmark.recipes.errors import RecipeError  # here: it imports pydantic

    if name not in EXECUTORS:
        raise RecipeError(
            f"There is no executor {name!r}; nothing was run.{did_you_mean(name, EXECUTORS)} "
            f"Executors: {', '.join(EXECUTORS)}."
        )
    return importlib.import_module(f"lowbit.benchmark.executors.{name}")
