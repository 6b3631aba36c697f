"""The C kernels compute what the eager route computes, bit for bit where nothing is summed."""

import math
import multiprocessing
import os
import subprocess

import pytest
import torch

from lowbit.backbones import create_backbone
from lowbit.quant import MinMax, Precision, calibrate, quantize, set_precision, use_fused_kernels
from lowbit.quant.kernels import c_kernels, torch_compiled
from lowbit.quant.kernels.learned_scale_quantize import interval, lsq
from lowbit.quant.kernels.range_quantize import fake_quantize, fake_quantize_symmetric

OPERATORS = {
    "lsq": lambda v, s, b: lsq(v, s, 2 ** (b - 1), 2 ** (b - 1) - 1, 0.1),
    "affine": lambda v, s, b: fake_quantize(v, s, None, -(2 ** (b - 1)), 2 ** (b - 1) - 1),
    "affine with a zero-point": lambda v, s, b: fake_quantize(
        v, s, torch.full_like(s, 3.0), 0, 2**b - 1
    ),
    "interval": lambda v, s, b: interval(v, s, -(2 ** (b - 1)), 2 ** (b - 1) - 1, 2 ** (b - 1)),
}
TENSORS = {
    "dense": (lambda: torch.randn(6, 4, 5, 5), (1,)),
    "several spans": (lambda: torch.randn(3, 5001), (1,)),
    "channels_last": (
        lambda: torch.randn(6, 4, 5, 5).to(memory_format=torch.channels_last),
        (1, 1, 1, 1),
    ),
    "a scale a channel": (lambda: torch.randn(6, 4, 3, 3), (6, 1, 1, 1)),
    "a scale a long channel": (lambda: torch.randn(3, 4097), (3, 1)),
    "one element": (lambda: torch.randn(1), (1,)),
}


@pytest.fixture
def switch():
    before = torch_compiled._wanted
    use_fused_kernels(None)
    if not c_kernels.supports(torch.ones(2)):
        use_fused_kernels(before)
        pytest.skip("there is no C compiler: quantizers run eagerly")
    yield use_fused_kernels
    use_fused_kernels(before)


@pytest.fixture
def calls(monkeypatch):
    """Names of the kernels that were called."""
    names = []
    for name in c_kernels._ARGUMENTS:
        plain = getattr(c_kernels, name)
        monkeypatch.setattr(
            c_kernels,
            name,
            lambda *a, name=name, plain=plain, **k: names.append(name) or plain(*a, **k),
        )
    return names


def run(operator, v, s, bits, upstream):
    v = v.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    s = s.detach().clone().requires_grad_()
    y = OPERATORS[operator](v, s, bits)
    return y.detach(), *torch.autograd.grad(y, (v, s), upstream)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", TENSORS)
def test_equals_eager_bit_for_bit_but_for_sums(operator, name, switch, calls):
    torch.manual_seed(0)
    make, shape = TENSORS[name]
    v, s = make(), torch.randint(1, 4, shape) / 4
    v.copy_(torch.where(torch.rand(v.shape) < 0.5, (v * 8).round() / 8, v))  # ties and bounds
    upstream = torch.randn_like(v)
    for bits in (1, 2, 4, 8):
        switch(None)
        ours = run(operator, v, s, bits, upstream)
        used = len(calls)
        switch(False)
        eager = run(operator, v, s, bits, upstream)
        assert used == len(calls) > 0  # those and only those
        for a, b in zip(ours[:2], eager[:2], strict=True):
            assert torch.equal(a, b) and a.stride() == b.stride()
        torch.testing.assert_close(ours[2], eager[2], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("operator", OPERATORS)
def test_nan_and_infinity_take_the_way_they_take_eagerly(operator, switch):
    v = torch.tensor([math.nan, math.inf, -math.inf, 0.3])
    results = []
    for wanted in (None, False):
        switch(wanted)
        results.append(run(operator, v, torch.tensor([0.5]), 4, torch.ones(4))[:2])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("width", [1, 27, 64, 200, 4608, 5001])
@pytest.mark.parametrize("shape", [(5, 1), (1,)])
def test_the_largest_weight_receives_the_gradient_of_its_scale(width, shape, switch, calls):
    torch.manual_seed(0)
    rows = torch.randint(-20, 20, (5, width)).float()  # with ties
    rows[1] = 0
    upstream, results = torch.randn(5, width), []
    for wanted in (None, False):
        switch(wanted)
        v = rows.clone().requires_grad_()
        y = fake_quantize_symmetric(v, shape, 4)
        results.append((y.detach(), *torch.autograd.grad(y, v, upstream)))
    assert calls == ["symmetric_forward", "symmetric_backward"]
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-5)


def test_nan_and_infinity_spoil_only_their_channel(switch):
    v = torch.tensor([[math.nan, math.inf, 0.3], [-math.inf, 0.1, 0.2], [0.3, -0.1, 0.2]])
    results = []
    for wanted in (None, False):
        switch(wanted)
        results.append(fake_quantize_symmetric(v, (3, 1), 4))
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)
    assert results[0][:2].isnan().any(1).all() and results[0][2].isfinite().all()


@pytest.mark.parametrize("low", [0.0, 0.4, -1.0])
def test_a_relu_and_its_quantizer_in_one_pass_equal_two(low, switch, calls):
    torch.manual_seed(0)
    quantizer = MinMax(scheme="affine", range="observed", bits=4)
    quantizer.init_from(torch.tensor([low, 2.0]))
    x, upstream = torch.randn(2, 3, 40, 40), torch.randn(2, 3, 40, 40)
    x[0, 0, 0, :4] = torch.tensor([math.nan, 0.0, math.inf, -math.inf])
    results = []
    for function in (quantizer.rectified, lambda v: quantizer(torch.relu(v))):
        v = x.clone().requires_grad_()
        y = function(v)
        results.append((y.detach(), *torch.autograd.grad(y, v, upstream)))
    assert calls == ["affine_forward", "affine_backward"] * 2
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    y = quantizer.rectified(x.requires_grad_())
    y.transpose(2, 3).backward(upstream)  # a gradient laid out otherwise
    torch.testing.assert_close(
        x.grad,
        torch.autograd.grad(quantizer(torch.relu(x)), x, upstream.transpose(2, 3))[0],
        rtol=0,
        atol=0,
    )


def test_a_relu_whose_quantizer_is_watched_calls_it(switch, calls):
    net = quantize(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU()), "ssql")
    x = torch.randn(2, 3, 5, 5)
    calibrate(net, [x])
    set_precision(net, Precision(4, 4))
    seen = []
    expected = net(x)
    assert calls.count("affine_forward") == 1
    with net[1].a_quant.register_forward_hook(lambda module, given, out: seen.append(out)):
        assert torch.equal(net(x), expected)
    assert torch.equal(seen[0], expected)


def test_sums_do_not_depend_on_the_number_of_threads(switch):
    torch.manual_seed(0)
    v, s, upstream = torch.randn(8, 9, 1000), torch.tensor([0.3]), torch.randn(8, 9, 1000)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run("lsq", v, s, 4, upstream))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_leaves_to_other_routes_what_it_cannot_take(switch, calls):
    one = torch.ones(1)
    for v in (
        torch.randn(4, 6).double(),
        torch.randn(4, 6).bfloat16(),
        torch.randn(4, 6)[:, ::2],
        torch.randn(0, 6),
    ):
        assert lsq(v, one, 4, 3).shape == v.shape
    lsq(torch.randn(4, 6), torch.ones(1, 6), 4, 3)  # a scale for each of the wrong axis
    lsq(torch.randn(4, 6), one.double(), 4, 3)
    assert not calls
    torch.compile(lambda v: lsq(v, one, 4, 3), backend="eager", fullgraph=True)(torch.randn(8))
    assert not calls
    lsq(torch.randn(4, 6), one, 4, 3)
    assert calls == ["lsq_forward"]


def test_a_gradient_laid_out_otherwise_goes_the_eager_way(switch, calls):
    v = torch.randn(4, 6, requires_grad=True)
    s = torch.ones(1, requires_grad=True)
    lsq(v, s, 4, 3).sum().backward()  # an expanded number
    assert calls == ["lsq_forward"] and v.grad is not None and s.grad is not None


def test_without_a_compiler_or_with_a_failing_one_quantizers_run_eagerly(
    switch, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no such option >&2; exit 1\n")
    broken.chmod(0o755)
    for compiler, said in ((str(broken), "no such option"), (str(tmp_path / "none"), "")):
        monkeypatch.setenv("CC", compiler)
        c_kernels.library.cache_clear()
        try:
            assert not c_kernels.supports(torch.ones(2))
            assert lsq(torch.ones(2), torch.ones(1), 4, 3).tolist() == [1, 1]
        finally:
            c_kernels.library.cache_clear()
        assert said in caplog.text
    assert not list((tmp_path / "lowbit-bench").glob("*"))


def test_is_compiled_once_for_a_machine(switch, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made, plain = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: made.append(a) or plain(*a, **k))
    try:
        for _ in range(2):
            c_kernels.library.cache_clear()
            assert c_kernels.supports(torch.ones(2))
    finally:
        c_kernels.library.cache_clear()
    assert len(made) == 1
    assert [f.suffix for f in (tmp_path / "lowbit-bench").iterdir()] == [".so"]


def _open():
    c_kernels.library.cache_clear()
    raise SystemExit(0 if c_kernels.supports(torch.ones(2)) else 1)


def test_a_truncated_library_is_compiled_again(switch, monkeypatch, tmp_path):
    """Opened in a child, which SIGBUS would end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    context = multiprocessing.get_context("fork")
    sizes = []
    for _ in range(2):
        child = context.Process(target=_open)
        child.start()
        child.join()
        assert child.exitcode == 0
        (library,) = (tmp_path / "lowbit-bench").iterdir()
        sizes.append(library.stat().st_size)
        os.truncate(library, 9000)
    assert min(sizes) > 9000


@pytest.fixture
def cached(tmp_path):
    """A cache with a library, as far as `_whole` looks at it."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    file = folder / f"kernels-1-{c_kernels._digest(b'a library')}.so"
    file.write_bytes(b"a library")
    file.chmod(0o644)
    assert c_kernels._whole(folder, "kernels-1") == file
    return file


def test_a_library_that_others_can_write_is_not_opened(cached, caplog):
    for mode in (0o664, 0o646):
        cached.chmod(mode)
        assert c_kernels._whole(cached.parent, "kernels-1") is None
    assert cached.exists() and "another user" in caplog.text
    cached.chmod(0o644)
    for mode in (0o770, 0o707, 0o777):
        cached.parent.chmod(mode)
        assert c_kernels._whole(cached.parent, "kernels-1") is None


def test_a_library_of_another_user_is_not_opened(cached, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    if os.getuid() == 0:  # root's own files may be used by all: give it to another
        os.chown(cached, 4321, -1)
    assert c_kernels._whole(cached.parent, "kernels-1") is None
    assert cached.exists()


def test_what_is_no_library_counts_as_absent(cached):
    content = cached.read_bytes()
    cached.unlink()
    os.mkfifo(cached)
    assert c_kernels._whole(cached.parent, "kernels-1") is None
    cached.unlink()
    other = cached.with_name("other")
    other.write_bytes(content)
    cached.symlink_to(other)
    assert c_kernels._whole(cached.parent, "kernels-1") is None
    assert c_kernels._whole(cached.parent / "none", "kernels-1") is None
    assert c_kernels._whole(other, "kernels-1") is None


@pytest.mark.parametrize("folder", ["no home", "a file", "others'"])
def test_without_a_cache_the_kernels_are_compiled_all_the_same(
    switch, monkeypatch, tmp_path, folder
):
    if folder == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    elif folder == "a file":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        (tmp_path / "file").write_text("")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        (tmp_path / "lowbit-bench").mkdir()
        (tmp_path / "lowbit-bench").chmod(0o777)
        monkeypatch.setattr("lowbit.common.cache_folder.os.geteuid", lambda: 4321)
    c_kernels.library.cache_clear()
    try:
        assert c_kernels.supports(torch.ones(2))
        assert lsq(torch.ones(2), torch.ones(1), 4, 3).tolist() == [1, 1]
    finally:
        c_kernels.library.cache_clear()
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.parametrize("damaged", [b"", b"a librar", b"a libraRy"])
def test_only_a_library_with_the_bytes_of_its_name_is_opened(cached, damaged):
    assert c_kernels._whole(cached.parent, "kernels-2") is None
    cached.write_bytes(damaged)
    assert c_kernels._whole(cached.parent, "kernels-1") is None
    assert not cached.exists()


@pytest.mark.parametrize("policy", ["lsq", "tr", "ssql"])
def test_a_network_trains_alike(policy, switch, calls):
    images, grads = torch.randn(4, 3, 32, 32), []
    for wanted in (None, False):
        switch(wanted)
        torch.manual_seed(0)
        net = quantize(create_backbone("resnet10_slim").eval(), policy, Precision(4, 4))
        calibrate(net, [images])
        net(images).square().sum().backward()
        grads.append(net.layer4[0].conv2.weight.grad)
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5 * grads[1].abs().max().item())
    assert calls
