"""Keep a suite's results under docs/evidence: the result files, without weights, predictions and caches.

Paths in them are reduced to the names of files, so that they say nothing of the machine.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lowbit.benchmark.planning.job import Label
from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.results.result_file import Result, job_folder, read_result, write_result
from lowbit.common.shipped_configs import find_config

EVIDENCE = Path(__file__).resolve().parents[2] / "docs" / "evidence"


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy the results of a suite; return 0, or 1 if a job of it has none."""
    parser = argparse.ArgumentParser(
        prog="python -m lowbit.tools.evidence.keep", description=__doc__.splitlines()[0]
    )
    parser.add_argument("suite", type=Path, help="YAML file, or a suite's name")
    parser.add_argument("runs", type=Path, help="folder that the suite ran in")
    parser.add_argument("--into", type=Path, default=EVIDENCE, help="default: docs/evidence")
    args = parser.parse_args(arguments)
    try:
        kept = keep(find_config(args.suite, "suites"), args.runs, args.into)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{kept} results are in {args.into / find_config(args.suite, 'suites').stem}")
    return 0


def keep(suite: Path, runs: Path, into: Path) -> int:
    """Copy the results of a suite's jobs into a folder of its name; return how many they are.

    Raises:
        ValueError: a job has no result, or did not complete; nothing is copied.
    """
    results = {}
    for name, job in plan(suite, ()).jobs.items():
        found = read_result(job_folder(runs, name))
        if found is None or found.status != "completed":
            raise ValueError(
                f"{runs} has no completed result of {job.title}; nothing was kept. Run the suite to its "
                "end first."
            )
        results[name] = portable(found, job.label)
    for name, result in results.items():
        folder = into / suite.stem / name
        folder.mkdir(parents=True, exist_ok=True)
        write_result(folder, result)
    return len(results)


def portable(result: Result, label: Label) -> Result:
    """Return a result whose files are named without their folders, and which lists no files it made.

    Its checkpoint is called what the suite calls it, wherever the job ran. Of the details the report on the
    file that was loaded is left out, since that file's own result has its recipe.
    """
    called = {
        "name": label.checkpoint,
        "pretraining": label.pretraining,
        "pretrain_seed": label.pretrain_seed,
    }
    inputs = {
        name: record.model_copy(update={"path": Path(record.path).name})
        for name, record in result.inputs.items()
    }
    recipe = {
        name: Path(value).name if name in inputs and isinstance(value, str) else value
        for name, value in result.recipe.items()
    }
    return result.model_copy(
        update={
            "checkpoint": result.checkpoint.model_copy(update=called),
            "inputs": inputs,
            "recipe": recipe,
            "artifacts": {},
            "artifact_sha256": {},
            "details": {k: v for k, v in result.details.items() if k != "load_report"},
        }
    )


if __name__ == "__main__":
    sys.exit(main())
