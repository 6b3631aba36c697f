"""Make the parts of README.md and docs/reproduction.md anew that are made of docs/evidence.

Nothing is trained: the verdicts and tables follow from the results that the repository keeps.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lowbit.common.atomic_file import write_text
from lowbit.tools.evidence.documents import updated

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "docs/reproduction.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Update the documents; return 0, or with --check 1 where one was out of date."""
    parser = argparse.ArgumentParser(
        prog="python -m lowbit.tools.evidence.update", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="change nothing, only compare")
    args = parser.parse_args(arguments)
    stale = []
    for name in DOCUMENTS:
        old = (ROOT / name).read_text(encoding="utf-8")
        new = updated(old, ROOT / "docs" / "evidence")
        if new != old:
            stale.append(name)
            if not args.check:
                write_text(ROOT / name, new)
    said = "out of date" if args.check else "updated"
    print(f"{', '.join(stale)}: {said}" if stale else "all parts are up to date")
    return 1 if stale and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
