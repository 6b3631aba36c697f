#!/usr/bin/env python
"""List the image sets, say how to get one, or verify that what is on disk is what it should be."""

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

  # a folder of your own, ./datasets/birds/{train,test}/CLASS/*.jpg: decode every file
  python tools/datasets.py verify folder:birds --root ./datasets --full
"""
SPLITS = ("train", "val", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return 0 when all is well and 1 when a set is missing or not as it should be."""
    args = _parser().parse_args(argv)
    from data import image_set, list_datasets  # here, so that --help does not wait for torch

    names = args.names or [*list_datasets(), *_folders(args.root)]
    try:
        for name in names:
            image_set(name)  # an unknown name is the caller's error, not a broken set
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return args.verb(names, args)


def show(names: Sequence[str], args: argparse.Namespace) -> int:
    """Print each set's size and the hash of its splits; reads no image."""
    from data import image_set, locate

    wide = max(map(len, names))
    print(
        f"{'name':<{wide}} {'classes':>7} {'pixels':>6} {'train':>9} {'val':>7} {'test':>7}  splits"
    )
    for name in names:
        try:
            spec = locate(name, root=args.root)
        except (FileNotFoundError, ValueError):  # `verify` says why
            spec = image_set(name)
        counts = spec.counts or dict.fromkeys(SPLITS, "?")
        pixels = spec.size or "any"
        digest = spec.split_sha256[:12] if spec.split_sha256 else "not ready"
        print(
            f"{name:<{wide}} {spec.num_classes or '?':>7} {pixels:>6} {counts['train']:>9} "
            f"{counts['val']:>7} {counts['test']:>7}  {digest}"
        )
    return 0


def verify(names: Sequence[str], args: argparse.Namespace) -> int:
    """Check hashes, counts, classes and disjointness of each set; --full decodes every file."""
    return max(_verify(name, args) for name in names)


def prepare(names: Sequence[str], args: argparse.Namespace) -> int:
    """Say for each set whether it is there, and if not, where its files go and how to get them."""
    missing = 0
    for name in names:
        if _verify(name, args):
            missing = 1
            print(_advice(name))
    return missing


def _verify(name: str, args: argparse.Namespace) -> int:
    from data import image_set

    check = _verify_pinned if image_set(name).folder is None else _verify_folder
    try:
        counts, sha256, problems = check(name, args)
    except (FileNotFoundError, ValueError) as error:
        print(f"{name}: NOT READY: {error}")
        return 1
    for problem in problems:
        print(f"{name}: DAMAGED: {problem}")
    found = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    outcome = f"{len(problems)} damaged files" if problems else "ok"
    print(f"{name}: {outcome}, {found}, splits {sha256[:12]}")
    return int(bool(problems))


def _verify_pinned(name: str, args: argparse.Namespace) -> tuple[dict, str, list[str]]:
    """Load every split, which checks hashes, counts, classes and disjointness."""
    from data import load

    loaded = {split: load(name, split, root=args.root) for split in SPLITS}
    counts = {split: len(images) for split, images in loaded.items()}
    return counts, loaded["test"].split_sha256, []


def _verify_folder(name: str, args: argparse.Namespace) -> tuple[dict, str, list[str]]:
    """Look at every file's size whatever was kept, and decode it where told to."""
    from tqdm import tqdm

    from data import locate
    from data.manifest import read_manifest
    from data.sets import resolve_root

    spec = locate(name, root=args.root)
    folder = spec.folder(resolve_root(args.root))
    manifest = read_manifest(folder, trust=False)
    problems = []
    if args.full:
        looked = tqdm(folder.damaged(), name, total=len(folder.paths), disable=None, unit="file")
        problems = [problem for problem in looked if problem]
    return spec.counts, manifest.sha256, problems


def _advice(name: str) -> str:
    from data.sets import FOLDER

    if name.startswith(FOLDER):
        return (
            "\nA class is a folder of images, named as the class, the same in train/ and test/ (or "
            "val/). With all three folders, val/ is what choices are made on; else a tenth of each "
            "class of train/ is."
        )
    if name == "imagenet":
        return (
            "\nGet ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar "
            "from image-net.org (an account is needed) into the folder named above, and let "
            'torchvision unpack them: `python -c "from torchvision.datasets import ImageNet; '
            "[ImageNet('FOLDER', split=s) for s in ('train', 'val')]\"`. The official val images are "
            "our test; val is carved from train."
        )
    return (
        "\nWithout a network: put the archive, under the name its publisher gave it, into the "
        "folder named above and run that command all the same; it unpacks what is there."
    )


def _folders(root: Path | None) -> list[str]:
    """Name the image folders under the root that no registered set is."""
    from data import list_datasets
    from data.sets import FOLDER, resolve_root

    found = sorted(path.parent.name for path in resolve_root(root).glob("*/train"))
    return [FOLDER + name for name in found if name not in list_datasets()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, metavar="list|prepare|verify")
    for word, function in (("list", show), ("prepare", prepare), ("verify", verify)):
        verb = verbs.add_parser(word, help=function.__doc__, description=function.__doc__)
        verb.add_argument(
            "names",
            nargs="*",
            metavar="NAME",
            help="image sets, folder:NAME for a folder; default all that are known or there",
        )
        verb.add_argument(
            "--root", type=Path, help="folder of the sets; default $LOWBIT_DATA, else ./datasets"
        )
        verb.set_defaults(verb=function, full=False)
    verb.add_argument("--full", action="store_true", help="decode every file of a folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
