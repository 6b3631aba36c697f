"""Choose the training images that keep their labels when only a share is used."""

import hashlib

import torch

from lowbit.data import Images


def labelled_places(train: Images, fraction: float) -> torch.Tensor:
    """Return indices of `fraction` of the training images, equally per class, in increasing order.

    Each of C classes keeps fraction x N / C of its images, rounded half up, at least one and at most
    all of them. Within a class they are the first by SHA-256 of "labels/<set>/<id>": the same for
    every seed, library and machine, and those of a smaller fraction are among those of a larger.

    Example:
        >>> from lowbit.data import open_images
        >>> digits = open_images("digits", "train")
        >>> digits.labels[labelled_places(digits, 0.01)].tolist() == list(range(10))
        False
        >>> sorted(digits.labels[labelled_places(digits, 0.01)].tolist()) == list(range(10))
        True
    """
    each = max(1, int(fraction * len(train) / len(train.classes) + 0.5))
    ids = train.ids.tolist()
    kept = []
    for label in train.labels.unique().tolist():
        members = (train.labels == label).nonzero().flatten().tolist()
        members.sort(key=lambda place: _rank(train.name, ids[place]))
        kept += members[:each]
    return torch.tensor(sorted(kept), dtype=torch.int64)


def _rank(name: str, image_id: int) -> bytes:
    return hashlib.sha256(f"labels/{name}/{image_id}".encode()).digest()
