"""Names of tensors without what training wrapped around the network's modules."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection

# One component of a name each, wherever it is: DataParallel and DDP; torch.compile; FSDP; activation
# checkpointing; DeepSpeed and Lightning Fabric.
_WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
)
_WRAPPER = re.compile(rf"(?<![^.])(?:{'|'.join(_WRAPPERS)})\.")
_CHUNKED = re.compile(r"(?P<blocks>(?:.*\.)?blocks\.)(?P<chunk>\d+)\.(?P<index>\d+)\.(?P<rest>.+)")


def unwrapped(name: str) -> str:
    """Return a name without wrappers.

    Example:
        >>> unwrapped("module.encoder_q._orig_mod.layer1._checkpoint_wrapped_module.0.weight")
        'encoder_q.layer1.0.weight'
    """
    return _WRAPPER.sub("", name)


def bare_names(names: Collection[str]) -> dict[str, str]:
    """Return each name of a state dict with its bare form, in which networks are compared.

    Names that would become equal, two networks of which one is wrapped, keep their wrappers.

    Example:
        >>> bare_names(["module.blocks.0.0.bias", "module.blocks.1.1.bias"])  # DINOv2's chunks
        {'module.blocks.0.0.bias': 'blocks.0.bias', 'module.blocks.1.1.bias': 'blocks.1.bias'}
    """
    bare = {name: unwrapped(name) for name in names}
    count = Counter(bare.values())
    bare = {name: short if count[short] == 1 else name for name, short in bare.items()}
    chunked = _chunked(bare.values())
    return {name: _without_chunk(short, chunked) for name, short in bare.items()}


def _chunked(names: Collection[str]) -> frozenset[str]:
    """Return the prefixes of blocks that are stored in chunks, `blocks.<chunk>.<index>`.

    The index runs on over the chunks, which tells them from stages, where it starts again.
    """
    indices: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for name in names:
        if found := _CHUNKED.fullmatch(name):
            indices[found["blocks"]][int(found["chunk"])].add(int(found["index"]))
    return frozenset(
        prefix
        for prefix, chunks in indices.items()
        if [i for chunk in sorted(chunks) for i in sorted(chunks[chunk])]
        == list(range(sum(map(len, chunks.values()))))
    )


def _without_chunk(name: str, chunked: frozenset[str]) -> str:
    found = _CHUNKED.fullmatch(name)
    if not found or found["blocks"] not in chunked:
        return name
    return f"{found['blocks']}{found['index']}.{found['rest']}"
