#!/usr/bin/env python
"""List the image sets, say how to get one, or verify that what is on disk is what is pinned."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

EXAMPLES = """examples:
  python tools/datasets.py list
  python tools/datasets.py verify digits
  python tools/datasets.py prepare cifar10 --root ./datasets
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return 0 when all is well and 1 when a set is missing or not what is pinned."""
    args = _parser().parse_args(argv)
    from data import list_datasets  # here, so that --help does not wait for torch

    try:
        return args.verb(args.names or list_datasets(), args.root)
    except ValueError as error:  # no such set
        print(f"error: {error}", file=sys.stderr)
        return 1


def show(names: Sequence[str], root: Path | None) -> int:
    """Print each set's size and the hash of its pinned splits; reads no image."""
    from data import image_set

    print(f"{'name':<12} {'classes':>7} {'pixels':>6} {'train':>7} {'val':>7} {'test':>7}  splits")
    for name in names:
        spec = image_set(name)
        counts = " ".join(f"{spec.counts[split]:>7}" for split in ("train", "val", "test"))
        digest = spec.split_sha256[:12]
        print(f"{name:<12} {spec.num_classes:>7} {spec.size:>6} {counts}  {digest}")
    return 0


def verify(names: Sequence[str], root: Path | None) -> int:
    """Load every split of each set, which checks hashes, counts, classes and disjointness."""
    return max(_verify(name, root) for name in names)


def prepare(names: Sequence[str], root: Path | None) -> int:
    """Say for each set whether it is there, and if not, where its files go and how to get them."""
    missing = verify(names, root)
    if missing:
        print(
            "\nWithout a network: put the archive, under the name its publisher gave it, into the "
            "folder named above and run that command all the same; it unpacks what is there."
        )
    return missing


def _verify(name: str, root: Path | None) -> int:
    from data import image_set, load

    image_set(name)  # an unknown name is the caller's error, not a broken set
    try:
        loaded = [load(name, split, root=root) for split in ("train", "val", "test")]
    except (FileNotFoundError, ValueError) as error:
        print(f"{name}: NOT READY: {error}")
        return 1
    counts = ", ".join(f"{len(split)} {split.split}" for split in loaded)
    print(f"{name}: ok, {counts}, splits {loaded[0].split_sha256[:12]}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, metavar="list|prepare|verify")
    for word, function in (("list", show), ("prepare", prepare), ("verify", verify)):
        verb = verbs.add_parser(word, help=function.__doc__, description=function.__doc__)
        verb.add_argument("names", nargs="*", metavar="NAME", help="image sets; default all")
        verb.add_argument(
            "--root", type=Path, help="folder of the sets; default $LOWBIT_DATA, else ./datasets"
        )
        verb.set_defaults(verb=function)
    return parser


if __name__ == "__main__":
    sys.exit(main())
