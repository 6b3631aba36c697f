"""Guard that separates the labels a job learns from and those it is scored on."""

import os

import torch

from lowbit.data import Images, open_images


class GuardedSplits:
    """Give access to train and val, and to test only once, when nothing is left to choose.

    It counts the test reads that a result reports. Code that fits or chooses never
    receives it: protocols receive splits, not this object.

    Args:
        dataset: an image set.
        train_on: "train", or "trainval", which leaves no val.
        root: folder of the sets.
    """

    def __init__(
        self, dataset: str, *, train_on: str = "train", root: str | os.PathLike | None = None
    ) -> None:
        self._dataset, self._root = dataset, root
        self.train = open_images(dataset, train_on, root=root)
        self.val = open_images(dataset, "val", root=root) if train_on == "train" else None
        self.test_reads = 0

    def open_test(self) -> Images:
        """Return the test split; a second call is a bug in the caller."""
        assert self.test_reads == 0, "the test split of a job is read once"
        self.test_reads += 1
        test = open_images(self._dataset, "test", root=self._root)
        for seen in filter(None, (self.train, self.val)):
            found = torch.isin(test.ids, seen.ids).any()
            assert not found, "a test image was trained or validated on"
        return test
