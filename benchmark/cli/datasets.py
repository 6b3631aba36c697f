"""List image sets, download and unpack them, or verify the files on disk, of detection sets too."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.benchmark.cli import make_parser
from lowbit.common.text import printable_lines

if TYPE_CHECKING:
    from lowbit.data.image_sets.spec import FilesOnDisk
    from lowbit.detection.datasets.catalog import Source

EXAMPLES = """examples:
  lowbit-bench datasets list
  lowbit-bench datasets verify digits
  lowbit-bench datasets prepare flowers102 dtd --download --root ./datasets

  # offline: shows which archive to put where, and unpacks it once it is there
  lowbit-bench datasets prepare pets --root ./datasets

  # a folder of your own, ./datasets/birds/{train,test}/CLASS/*.jpg: decode every file
  lowbit-bench datasets verify folder:birds --root ./datasets --full

  # annotated images: every value of the annotations, and the header of every image
  lowbit-bench datasets verify coco:pets voc:raccoon --root ./datasets

exit code: 0 success, 1 a set is missing or damaged, 2 invalid command line."""
SPLITS = ("train", "val", "test")


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one subcommand; return 0 on success and 1 if a set is missing or damaged."""
    args = _parser(prog).parse_args(arguments)
    from lowbit.data import image_set, list_datasets  # here, so that --help is fast

    names = args.names or [*list_datasets(), *_folders(args.root)]
    try:
        for name in names:  # an unknown name is a usage error, not a damaged set
            if not _is_detection(name):
                image_set(name)
    except ValueError as error:
        print(printable_lines(f"error: {error}"), file=sys.stderr)
        return 1
    return args.verb(names, args)


def show(names: Sequence[str], args: argparse.Namespace) -> int:
    """Print each set's size, the hash of its splits and what fixes them; reads no image."""
    from lowbit.data import image_set, locate

    wide = max(map(len, names))
    print(
        f"{'name':<{wide}} {'classes':>7} {'pixels':>6} {'train':>9} {'val':>7} {'test':>7}  {'splits':<12} pin"
    )
    for name in names:
        if _is_detection(name):
            print(f"{name:<{wide}} annotated images, which `verify` counts")
            continue
        try:
            spec = locate(name, root=args.root)
        except (FileNotFoundError, ValueError):  # `verify` says why
            spec = image_set(name)
        counts = spec.counts or dict.fromkeys(SPLITS, "?")
        pixels = spec.size or "any"
        digest = spec.split_sha256[:12] if spec.split_sha256 else "not ready"
        print(
            f"{name:<{wide}} {spec.num_classes or '?':>7} {pixels:>6} {counts['train']:>9} "
            f"{counts['val']:>7} {counts['test']:>7}  {digest:<12} {spec.pin}"
        )
    return 0


def verify(names: Sequence[str], args: argparse.Namespace) -> int:
    """Check hashes, counts, classes, files and archives of each set; --full decodes every file."""
    return max(_verify(name, args) for name in names)


def prepare(names: Sequence[str], args: argparse.Namespace) -> int:
    """Unpack each set's archives if present, or --download them; else print what to get."""
    missing = 0
    for name in names:
        _unpack(name, args)
        if _verify(name, args):
            missing = 1
            print(_advice(name, args))
    return missing


def _unpack(name: str, args: argparse.Namespace) -> None:
    from lowbit.data import locate
    from lowbit.data.image_sets.archives import archives, unpack
    from lowbit.data.image_sets.spec import resolve_root

    if _is_detection(name):
        return
    root = resolve_root(args.root)
    needed = archives(name, root)
    try:
        there = not needed or locate(name, root=args.root).read is None
    except (FileNotFoundError, ValueError):  # `verify` says why
        there = False
    if there or (not args.download and any(archive.problem() for archive in needed)):
        return
    try:
        unpack(name, root)
    except (RuntimeError, OSError) as error:  # no network, or a wrong archive
        print(f"{name}: NOT UNPACKED: {error}")


def _verify(name: str, args: argparse.Namespace) -> int:
    try:
        counts, sha256, problems = _verifier(name)(name, args)
    except (FileNotFoundError, ValueError) as error:
        print(f"{name}: NOT READY: {error}")
        for problem in _damaged_archives(name, args):
            print(f"{name}: DAMAGED: {problem}")
        return 1
    for problem in problems:
        print(f"{name}: DAMAGED: {problem}")
    found = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    outcome = f"{len(problems)} problems" if problems else "ok"
    print(f"{name}: {outcome}, {found}, splits {sha256[:12]}")
    return int(bool(problems))


def _verifier(name: str) -> Callable[[str, argparse.Namespace], tuple[dict, str, list[str]]]:
    from lowbit.data import image_set

    if _is_detection(name):
        return _verify_detection
    spec = image_set(name)
    if not spec.folder:
        return _verify_pinned
    return _verify_folder if spec.pin == "files" else _verify_published


def _verify_detection(name: str, args: argparse.Namespace) -> tuple[dict, str, list[str]]:
    """Check every annotation of every split, and whether its images can be decoded."""
    from lowbit.detection.datasets.check_annotations import problems

    source = _detection_source(name, args)
    sets = {split: source.load(split) for split in source.splits}
    counts = {split: len(sets.get(split, ())) for split in SPLITS}
    return counts, source.sha256(train=None, test=None, test_split="test"), problems(sets)


def _verify_pinned(name: str, args: argparse.Namespace) -> tuple[dict, str, list[str]]:
    """Load every split, which checks hashes, counts, classes and disjointness."""
    from lowbit.data import load

    loaded = {split: load(name, split, root=args.root) for split in SPLITS}
    counts = {split: len(images) for split, images in loaded.items()}
    return counts, loaded["test"].split_sha256, []


def _verify_folder(name: str, args: argparse.Namespace) -> tuple[dict, str, list[str]]:
    """Check every file's size again and, with --full, decode it."""
    from lowbit.data import locate
    from lowbit.data.image_sets.folder_manifest import read_manifest
    from lowbit.data.image_sets.spec import resolve_root

    spec = locate(name, root=args.root)
    folder = spec.folder(resolve_root(args.root))
    manifest = read_manifest(folder, trust=False)
    return spec.counts, manifest.sha256, _undecodable(name, folder) if args.full else []


def _verify_published(name: str, args: argparse.Namespace) -> tuple[dict, str, list[str]]:
    """Check lists, files, remaining archives and the hashes recorded at first use."""
    from lowbit.data import locate

    spec = locate(name, root=args.root)
    folder = spec.folder(None)
    problems = _damaged_archives(name, args)
    if args.full:
        problems += _undecodable(name, folder)
    if not problems and (changed := folder.changed()):
        problems = [changed]
    return spec.counts, spec.split_sha256, problems


def _damaged_archives(name: str, args: argparse.Namespace) -> list[str]:
    from lowbit.data.image_sets.archives import damaged
    from lowbit.data.image_sets.spec import resolve_root

    if _is_detection(name):
        return []
    return list(damaged(name, resolve_root(args.root)))


def _undecodable(name: str, folder: "FilesOnDisk") -> list[str]:
    from tqdm import tqdm

    looked = tqdm(folder.damaged(), name, total=len(folder.contents), disable=None, unit="file")
    return [problem for problem in looked if problem]


def _advice(name: str, args: argparse.Namespace) -> str:
    from lowbit.data.image_sets.archives import archives
    from lowbit.data.image_sets.spec import FOLDER, FRAMES, resolve_root

    if _is_detection(name):
        return "\ndocs/detection_data.md has the layouts of folders of annotated images."
    if name.startswith(FRAMES):
        return (
            "\nA video is a folder of its frames, named in their order, in the folder of its class: "
            "train/CLASS/VIDEO/00001.jpg, the same classes in test/ (or val/). Extract them with, for "
            "example, `ffmpeg -i VIDEO.mp4 -vf fps=1,scale=-1:256 train/CLASS/VIDEO/%05d.jpg`. A set that "
            "is published as lists, as ActivityNet: docs/adaptive.md."
        )
    if name.startswith(FOLDER):
        return (
            "\nA class is a folder of images, named as the class, the same in train/ and test/ (or "
            "val/). With all three folders, val/ is used for choices; else a tenth of each "
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
    files = "".join(
        f"\n  {archive.path}\n      from {archive.url}\n      MD5 {archive.md5}"
        for archive in archives(name, resolve_root(args.root))
    )
    return (
        "\nTo get it, run the same command with --download. Offline, put each archive in its "
        f"place, then run the same command, which unpacks them.{files}"
    )


def _is_detection(name: str) -> bool:
    from lowbit.detection.datasets.catalog import list_detection_sets

    return name.startswith(("coco:", "voc:")) or name in list_detection_sets()


def _detection_source(name: str, args: argparse.Namespace) -> "Source":
    from lowbit.detection.datasets.catalog import find_source

    base = args.voc_base if name.startswith("voc:") else None
    return find_source(name, root=args.root, voc_base=base)


def _folders(root: Path | None) -> list[str]:
    """List the folders of images or videos under the root that are not registered sets."""
    from lowbit.data import list_datasets
    from lowbit.data.image_sets.spec import FOLDER, FRAMES, resolve_root

    names = []
    for train in sorted(resolve_root(root).glob("*/train")):
        sample = next(train.glob("[!.]*/[!.]*"), train)  # a file in a folder of images
        kind = FRAMES if sample.is_dir() and sample != train else FOLDER
        if train.parent.name not in list_datasets():
            names.append(kind + train.parent.name)
    return names


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = make_parser(__doc__, EXAMPLES, prog)
    verbs = parser.add_subparsers(required=True, metavar="list|prepare|verify")
    for word, function in (("list", show), ("prepare", prepare), ("verify", verify)):
        verb = verbs.add_parser(word, help=function.__doc__, description=function.__doc__)
        verb.add_argument(
            "names",
            nargs="*",
            metavar="NAME",
            help="image sets, folder:NAME for a folder, coco:NAME or voc:NAME for annotated images; "
            "default: all image sets that are registered or found",
        )
        verb.add_argument(
            "--root", type=Path, help="folder of the sets; default: $LOWBIT_DATA, else ./datasets"
        )
        verb.add_argument(
            "--voc-base",
            type=int,
            choices=(0, 1),
            help="voc:NAME: what corners count from; default: 1, and a corner of 0 is refused",
        )
        verb.set_defaults(verb=function, full=False)
        if function is prepare:
            verb.add_argument("--download", action="store_true", help="download missing archives")
    verb.add_argument("--full", action="store_true", help="decode every file of a set")
    return parser
