"""Run `lowbit-bench` as `python -m lowbit`."""

import sys

from lowbit.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
