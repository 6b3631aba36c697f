"""Compiling by torch without its trials of the compiler, which take seconds."""

import pytest


@pytest.fixture(scope="module")
def trusted_compiler():
    """Let torch take for granted that the compiler knows this CPU's vector instructions."""
    from torch._inductor.cpu_vec_isa import VecISA  # a second, which not all tests need

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VecISA, "check_build", lambda isa, code: True)
        yield
