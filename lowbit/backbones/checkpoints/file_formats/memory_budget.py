"""How much memory the contents of a file may take, counted before it is taken."""

from lowbit.backbones.checkpoints.file_formats.refusals import RefusedError
from lowbit.common.text import size

_SLACK = 200_000_000  # bytes


class MemoryBudget:
    """Bytes that may still be used for a file: at first twice its size, and 200 MB.

    Whatever grows from a file is counted: Python objects, copies, and each tensor at the size that it
    declares, since whoever works on it takes that much. So a small file cannot become a large one by
    elements or tensors that share their memory.
    """

    def __init__(self, file_size: int) -> None:
        self.file_size = file_size
        self._left = 2 * file_size + _SLACK

    def take(self, count: int) -> None:
        """Count bytes.

        Raises:
            RefusedError: there are not so many left.
        """
        self._left -= count
        if self._left < 0:
            raise RefusedError(
                f"has {size(self.file_size)}, and its contents would take more than "
                f"{size(2 * self.file_size + _SLACK)}",
                "Save the network's state_dict alone, each tensor with memory of its own.",
            )
