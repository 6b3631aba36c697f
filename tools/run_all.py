#!/usr/bin/env python
"""`lowbit-bench run`, from a checkout; with `check` or `status` as its first word, those."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().with_name("import_root")))

from lowbit.benchmark.cli import check, run, status

VERBS = {"check": check, "status": status}


def main() -> int:
    verb = VERBS.get("".join(sys.argv[1:2]))
    return verb.main(sys.argv[2:], prog=f"run_all.py {sys.argv[1]}") if verb else run.main()


if __name__ == "__main__":
    sys.exit(main())
