"""Run every step on a checkpoint with few images, in under two minutes, and report what fails and why.

It is loaded, quantized, calibrated, run forward and backward at every precision, probed on digits, and
used as the backbone of a quantized detector. Nothing is written except the file of --json.
"""

import argparse
import dataclasses
import json
import logging
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from lowbit.benchmark.cli import log_to_stderr, make_parser
from lowbit.common.text import printable, printable_lines

EXAMPLES = """examples:
  # will this file work in the suite?
  lowbit-bench check my.pth

  # a file that does not name its network; write the findings as JSON
  lowbit-bench check my.pth --architecture resnet18_cifar --json check.json

  # with another quantization policy
  lowbit-bench check my.pth --policy lsq

exit code: 0 nothing failed, 1 something failed, 2 invalid command line."""
_LONGEST = 4000  # characters of a detail
_MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Check one file; return 0 if nothing failed and 1 otherwise."""
    args = _parser(prog).parse_args(arguments)
    log_to_stderr(logging.WARNING, "%(name)s: %(message)s")
    import torch  # here, so that --help is fast

    from lowbit.benchmark.checkpoint_check.check import check

    if args.threads:
        torch.set_num_threads(args.threads)
    found = []
    try:
        for finding in check(args.path, architecture=args.architecture, policy=args.policy):
            found.append(finding)
            print(line(finding.name, _MARKS[finding.status], _shown(finding.detail)), flush=True)
    except ValueError as error:
        print(printable_lines(f"error: {error}"), file=sys.stderr)
        return 1
    failed = [finding.name for finding in found if finding.status == "failed"]
    seconds = sum(finding.seconds for finding in found)
    print(f"\n{_verdict(failed)} ({seconds:.0f} s)")
    if args.json:
        from lowbit.common.atomic_file import write_text

        record = {
            "path": str(args.path),
            "policy": args.policy,
            "passed": not failed,
            "findings": [dataclasses.asdict(finding) for finding in found],
        }
        write_text(args.json, json.dumps(record, indent=2) + "\n")
    return 1 if failed else 0


def line(name: str, mark: str, detail: str) -> str:
    """Format one finding; a detail of several lines is indented."""
    head = f"{name:<16} {mark:<8} "
    return textwrap.fill(
        detail, 110, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False
    )


def _shown(detail: str) -> str:
    """Return a detail on one line: it quotes names of tensors and what their file says."""
    return printable(detail.replace("\n", " "), _LONGEST)


def _verdict(failed: Sequence[str]) -> str:
    if not failed:
        return "Nothing failed: the checkpoint is ready for lowbit-bench run."
    return f"Failed: {', '.join(failed)}."


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = make_parser(__doc__, EXAMPLES, prog)
    parser.add_argument("path", type=Path, metavar="PATH", help="checkpoint")
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="network; default: as given by the file or its shapes",
    )
    parser.add_argument("--policy", default="ssql", help="quantization policy (default: ssql)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    return parser
