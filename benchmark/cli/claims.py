"""Try the papers' claims on results: supported, contradicted, undecided or not run."""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lowbit.benchmark.cli import log_to_stderr, make_parser
from lowbit.common.text import printable_lines

EXAMPLES = """examples:
  # what do the results of a suite say of the four papers' claims?
  lowbit-bench claims runs/demo

  # of several folders together: all verdicts are corrected for everything that was tried
  lowbit-bench claims runs/demo runs/tr_small

  # as a table for a document; with every number, for a script
  lowbit-bench claims runs/demo --markdown
  lowbit-bench claims runs/demo --json

  # claims of your own, in a file like configs/claims.yaml
  lowbit-bench claims runs/demo --claims mine.yaml

exit code: 0 tried, whatever the verdicts, 1 a wrong folder, name or number, 2 invalid command line."""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Print a table of verdicts; return 0, or 1 if a folder, a name or a number is wrong."""
    parser = make_parser(__doc__, EXAMPLES, prog)
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        type=Path,
        help="folder of a suite's runs, or of several such folders",
    )
    parser.add_argument(
        "--claims", type=Path, metavar="FILE", help="claims to try (default: configs/claims.yaml)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of text")
    form.add_argument("--markdown", action="store_true", help="print a table in Markdown")
    args = parser.parse_args(arguments)
    log_to_stderr(logging.WARNING, "%(name)s: %(message)s")
    from lowbit.benchmark.claims.claim import load_claims
    from lowbit.benchmark.claims.claims_text import to_json, to_markdown, to_text
    from lowbit.benchmark.claims.trials import try_claims

    try:
        trials = try_claims(args.folders, load_claims(args.claims))
    except (ValueError, FileNotFoundError) as error:
        print(printable_lines(f"error: {error}"), file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(to_json(trials), indent=1))
    else:
        print(to_markdown(trials) if args.markdown else to_text(trials))
    return 0
