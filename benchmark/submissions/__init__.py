"""Results that others send: written as a bundle, checked without trust, kept beside one's own.

    bundle.zip
        manifest.json               who sends it; every other file with its size and SHA-256
        jobs/<job id>/result.json   as the job wrote it, without the sender's folders
        jobs/<job id>/recipe.yaml   the recipe in it, for people
        jobs/<job id>/predictions.parquet, detections*.json

    runs/submissions/<name>/
        entry.json                  who sent it
        verdict.json                what each job counts as, and why
        <job id>/...                its files, as they came

A bundle is only ever read: nothing in it is run, unpickled or followed to a path, and one thing that
is wrong with it is enough that nothing of it is kept. `docs/submit.md` says what is checked.
"""

from lowbit.benchmark.submissions.bundle_writer import write_bundle
from lowbit.benchmark.submissions.manifest import BundleError, Entry, read_entry
from lowbit.benchmark.submissions.store import (
    Submission,
    add,
    compare,
    describe,
    examine,
    measured_here,
    remove,
)

__all__ = [
    "BundleError",
    "Entry",
    "Submission",
    "add",
    "compare",
    "describe",
    "examine",
    "measured_here",
    "read_entry",
    "remove",
    "write_bundle",
]
