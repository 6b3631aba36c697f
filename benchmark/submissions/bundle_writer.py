"""Write a bundle of a runs folder's results."""

import hashlib
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from lowbit.benchmark.recipes.yaml_files import get_stage
from lowbit.benchmark.results.rescore import PREDICTIONS, detections
from lowbit.benchmark.results.result_file import RESULT, Result, find_results, job_folder
from lowbit.benchmark.submissions.archive import RECIPE, member, write_archive
from lowbit.benchmark.submissions.check_job import recipe_text
from lowbit.benchmark.submissions.manifest import (
    SCHEMA_VERSION,
    BundleError,
    Content,
    Entry,
    Manifest,
    RefusedError,
)
from lowbit.benchmark.submissions.store import Submission, examine
from lowbit.common.file_hash import file_sha256
from lowbit.common.shipped_configs import shipped_config, shipped_name
from lowbit.common.suggest import did_you_mean


def write_bundle(
    runs_dir: Path,
    out: Path,
    entry: Entry,
    *,
    checkpoints: Collection[str] = (),
    data_root: Path | None = None,
) -> Submission:
    """Bundle the completed jobs of a runs folder, and those that made their checkpoints.

    Equal results give equal bytes. Paths of this machine are left out but for the files' names. The
    bundle is checked as its receiver will check it, and written only if it is accepted.

    Args:
        runs_dir: where the jobs' folders are.
        out: the ZIP file.
        entry: who sends it.
        checkpoints: which, by the names they have in suites; none: all.
        data_root: folder of the image sets; None: `$LOWBIT_DATA`, else `./datasets`.

    Returns:
        What the receiver will see, with the image sets that are here.

    Raises:
        FileNotFoundError: there is no such folder.
        BundleError: there is nothing to send, no such checkpoint, or a job would be refused.
    """
    chosen = _choose(runs_dir, set(checkpoints))
    names = {result.checkpoint.name for result in chosen}
    if unknown := sorted(entry.weights.keys() - names):
        raise BundleError(
            f"the entry says where the weights of {unknown[0]!r} are, of which there is no result; "
            f"nothing was written.{did_you_mean(unknown[0], names)}"
        )
    files = _collect(chosen, runs_dir)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        entry=entry,
        files={name: _content(source) for name, source in sorted(files.items())},
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle-") as scratch:
        written = Path(scratch, out.name)
        write_archive(written, manifest, files)
        try:
            submission = examine(written, data_root=data_root)
        except RefusedError as error:
            lines = "\n  ".join(error.wrong)
            raise BundleError(
                "these jobs would be refused; nothing was written. Run them again with this release "
                f"(--overwrite always), or leave their checkpoints out:\n  {lines}"
            ) from error
        written.replace(out)
    return submission


def _collect(chosen: Iterable[Result], runs_dir: Path) -> dict[str, Path | bytes]:
    """Return every file of a bundle except its manifest, by its name there."""
    files: dict[str, Path | bytes] = {}
    for result in chosen:
        folder = job_folder(runs_dir, result.job_id)
        sent = portable(result)
        files[member(result.job_id, RESULT)] = f"{sent.model_dump_json(indent=2)}\n".encode()
        files[member(result.job_id, RECIPE)] = recipe_text(sent).encode()
        for name, path in sent.artifacts.items():
            _check(folder / path, sent.artifact_sha256[name])
            files[member(result.job_id, path)] = folder / path
    return files


def _choose(runs_dir: Path, checkpoints: set[str]) -> list[Result]:
    if not runs_dir.is_dir():
        raise FileNotFoundError(
            f"there is no folder {runs_dir}; nothing was written. Pass the folder a suite wrote its "
            "runs to (--runs-dir)."
        )
    found = {r.job_id: r for r in find_results(runs_dir) if r.status == "completed"}
    scored = [r for r in found.values() if r.stage not in ("pretrain", "deploy")]
    names = {result.checkpoint.name for result in scored}
    if unknown := sorted(checkpoints - names):
        raise BundleError(
            f"no finished job of {runs_dir} scored a checkpoint {unknown[0]!r}; nothing was written."
            f"{did_you_mean(unknown[0], names)} There are: {', '.join(sorted(names)) or 'none'}."
        )
    wanted = {r.job_id for r in scored if not checkpoints or r.checkpoint.name in checkpoints}
    if not wanted:
        raise BundleError(f"{runs_dir} has no finished job with scores; nothing was written.")
    waiting = list(wanted)
    while waiting:  # jobs that made a checkpoint or a detector are included
        records = found[waiting.pop()].inputs.values()
        needs = {r.job_id for r in records if r.job_id in found} - wanted
        wanted |= needs
        waiting += needs
    return [found[job_id] for job_id in sorted(wanted)]


def portable(result: Result) -> Result:
    """Return a result without the sender's folders, and with only the files that are sent."""
    kept = {PREDICTIONS, *detections(result).values()} & result.artifacts.keys()
    inputs = {
        name: record.model_copy(update={"path": Path(record.path).name})
        for name, record in result.inputs.items()
    }
    return result.model_copy(
        update={
            "recipe": _portable_recipe(result),
            "inputs": inputs,
            "artifacts": {name: result.artifacts[name] for name in sorted(kept)},
            "artifact_sha256": {name: result.artifact_sha256[name] for name in sorted(kept)},
        }
    )


def _portable_recipe(result: Result) -> dict[str, Any]:
    cosmetic = get_stage(result.stage).Recipe.cosmetic
    recipe = dict(result.recipe)
    for name, record in result.inputs.items():
        recipe[name] = Path(record.path).name
    for name in {"data_root", "cache_dir"} & cosmetic & recipe.keys():
        recipe[name] = None
    if recipe.get("config"):
        path = Path(recipe["config"])
        if not path.is_file():
            path = shipped_config(recipe["config"]) or path
        recipe["config"] = shipped_name(path) or path.name
    return recipe


def _check(path: Path, sha256: str) -> None:
    if not path.is_file() or file_sha256(path) != sha256:
        raise BundleError(
            f"{path} is not the file that its job wrote; nothing was written. Run the job again "
            "(--overwrite always), or leave its checkpoint out."
        )


def _content(source: Path | bytes) -> Content:
    if isinstance(source, bytes):
        return Content(bytes=len(source), sha256=hashlib.sha256(source).hexdigest())
    return Content(bytes=source.stat().st_size, sha256=file_sha256(source))
