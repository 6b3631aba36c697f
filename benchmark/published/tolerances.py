"""The published tables that the shipped suites reproduce, with tolerances, from `tables.yaml`."""

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from lowbit.benchmark.published.selection import Row, matching
from lowbit.benchmark.recipes.yaml_files import load_yaml
from lowbit.common.input_files.strict_model import StrictModel

_FILE = Path(__file__).with_name("tables.yaml")


class Without(StrictModel):
    """Numbers of a table that no job measures."""

    where: dict[str, Any] = Field(description="their columns and values")
    why: str = Field(description="why not")


class Table(StrictModel):
    """One published table."""

    paper: str = Field(description="as in the published numbers")
    table: str = Field(description="as in the published numbers")
    suite: str = Field(description="suite of configs/suites that has most of its jobs")
    tolerance: float | None = Field(gt=0, description="null: the numbers cannot be compared")
    at: dict[str, float] = Field({}, description="another tolerance, by precision or metric")
    why: str = Field(description="why this tolerance")
    differs: str = Field(description="what is known to differ from the published experiment")
    without: tuple[Without, ...] = Field((), description="numbers that no job measures")

    def tolerance_of(self, row: Row) -> float | None:
        """Return the largest difference that counts as reproduced."""
        return self.at.get(row["metric"], self.at.get(row["precision"], self.tolerance))

    def why_without(self, row: Row) -> str | None:
        """Return why no job measures a number; None if one does."""
        return next((w.why for w in self.without if matching([row], w.where)), None)


@cache
def tables() -> dict[tuple[str, str], Table]:
    """Return the tables by paper and name."""
    listed = [Table.model_validate(item) for item in load_yaml(_FILE)["tables"]]
    return {(table.paper, table.table): table for table in listed}
