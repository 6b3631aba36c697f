"""A guard between the labels a job learns from and those it is scored on."""

import os

import torch

from data import Split, load


class GuardedSplits:
    """Give out train and val freely, and test once, when everything is decided.

    The object owns the count of test reads that a result reports. Nothing that fits or chooses
    gets hold of it: protocols are handed the training split alone.
    """

    def __init__(self, dataset: str, *, root: str | os.PathLike | None = None) -> None:
        self._dataset, self._root = dataset, root
        self.train = load(dataset, "train", root=root)
        self.val = load(dataset, "val", root=root)
        self.test_reads = 0

    def open_test(self) -> Split:
        """Return the test split; a second call is a bug in the caller."""
        assert self.test_reads == 0, "the test split of a job is read once"
        self.test_reads += 1
        test = load(self._dataset, "test", root=self._root)
        seen = torch.cat([self.train.ids, self.val.ids])
        assert not torch.isin(test.ids, seen).any(), "a test image was trained or validated on"
        return test
