"""Tell results apart whose recipes differ although their rows would have the same labels.

A recipe that is edited between two runs (its learning rate, say) leaves results that agree in everything
a board shows. Their mean would be of no recipe, so each row is named after what differs: `mine [lr 0.3]`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lowbit.benchmark.recipes.stages import STAGES, get_stage
from lowbit.benchmark.results.comparability import BOARD, SUBJECT
from lowbit.benchmark.results.recipe_hash import RECIPE, START, telling_fields
from lowbit.benchmark.results.result_file import read_result

_SHOWN, _LENGTH = 3, 32  # fields in a label; characters of a value

_Fields = dict[str, Any]


def variants(
    jobs: pd.DataFrame, runs_dir: Path, *, folder: str, within: Sequence[str] = (*SUBJECT, *BOARD)
) -> pd.Series:
    """Return what tells each job's recipe from the others of its row, such as "lr 0.3"; "" if nothing.

    Args:
        jobs: a row a job: its facts, RECIPE and START.
        runs_dir: where the result files are.
        folder: the column that says in which folder there.
        within: the columns in which the jobs of a row agree.
    """
    labels = pd.Series("", index=jobs.index, dtype=object)
    done = jobs[jobs["status"] == "completed"]
    made = jobs.drop_duplicates("job_id").set_index("job_id")[[RECIPE, folder]]
    recipes = done[RECIPE] + done[START].map(made[RECIPE]).fillna("")
    row = [done[column] for column in within if column in done]
    several = recipes.groupby(row, dropna=False).transform("nunique") > 1
    settings: dict[str, _Fields] = {}  # by recipe: each is read once
    for _, rows in done[several].groupby([column[several] for column in row], dropna=False):
        for index, job in rows.iterrows():
            if recipes[index] not in settings:
                own = _read(runs_dir / job[folder])
                start = (
                    _read(runs_dir / made[folder][job[START]]) if job[START] in made.index else {}
                )
                settings[recipes[index]] = own | {f"start's {k}": v for k, v in start.items()}
        found = _labels({recipe: settings[recipe] for recipe in recipes[rows.index]})
        labels[rows.index] = recipes[rows.index].map(found)
    return labels


def _read(folder: Path) -> _Fields:
    """Return the fields of a job's recipe that change its numbers."""
    result = read_result(folder)
    if result is None:
        return {}
    cosmetic = get_stage(result.stage).Recipe.cosmetic if result.stage in STAGES else frozenset()
    return {name: value for name, value in telling_fields(result).items() if name not in cosmetic}


def _labels(settings: Mapping[str, _Fields]) -> dict[str, str]:
    """Return a label a recipe: the fields that two recipes have with different values.

    A field that a recipe lacks is one that came with a later version, and no difference.
    """
    names = list(dict.fromkeys(name for fields in settings.values() for name in fields))
    opened = {}
    for name in names:
        values = [fields[name] for fields in settings.values() if name in fields]
        if _differ(values):
            parts = all(isinstance(value, Mapping) for value in values)
            keys = dict.fromkeys(key for value in values for key in value) if parts else ()
            opened[name] = [k for k in keys if _differ(value.get(k) for value in values)]
    labels = {}
    for recipe, fields in settings.items():
        texts = []
        for name, keys in opened.items():
            if name in fields:
                value = fields[name]
                texts += [f"{name}.{k} {_text(value.get(k))}" for k in keys] or [
                    f"{name} {_text(value)}"
                ]
        more = [f"{len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
        labels[recipe] = ", ".join([*texts[:_SHOWN], *more])
    shared = pd.Series(labels).value_counts()
    return {
        # alike in what is shown: only a hash tells them apart
        recipe: f"{label}, recipe {recipe[:8]}"
        if label.endswith(" more") and shared[label] > 1
        else label
        for recipe, label in labels.items()
    }


def _differ(values: Iterable[Any]) -> bool:
    return len({json.dumps(value, sort_keys=True, default=str) for value in values}) > 1


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."
