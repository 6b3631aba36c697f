"""Compiling by torch without its trials of the compiler, which cost more than all kernels here."""

import pytest
import torch._inductor.config


@pytest.fixture(scope="module", autouse=True)
def _trust_the_compiler():
    """Let torch take for granted that the compiler knows this CPU's vector instructions."""
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True}):
        yield
