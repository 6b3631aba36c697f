"""Why a file was not read."""


class CheckpointError(ValueError):
    """Raised when a checkpoint was not loaded; the message gives the reason and a remedy."""


class DamagedError(Exception):
    """A file contradicts itself or its format; the argument is the reason."""


class RefusedError(Exception):
    """A file is whole, and is not read.

    Attributes:
        what: it is or holds, to stand after its name.
        remedy: what to do instead.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


class ForeignClassError(RefusedError):
    """A pickle names a class or function that is not data."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"names {name}, which is neither a tensor nor an array nor a plain setting",
            "Open it in the project that wrote it, and save the network's state_dict alone.",
        )
