#!/usr/bin/env python
"""`lowbit-bench transfer`, from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().with_name("import_root")))

from lowbit.benchmark.cli.single_jobs.transfer import main

if __name__ == "__main__":
    sys.exit(main())
