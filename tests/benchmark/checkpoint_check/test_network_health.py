"""What a network costs a check, counted on the CPU that runs it."""

from lowbit.backbones import create_backbone
from lowbit.backbones.counting import network_size
from lowbit.benchmark.checkpoint_check.network_health import Subject
from lowbit.quant import quantize


def test_operations_include_attention():
    """As counted on the meta device, where no kernel is fused: attention is 14 % of this network."""
    network = quantize(create_backbone("vit_tiny_patch16_224"), "lsq").eval()
    subject = Subject(network, precisions=1)
    attention = 2 * (12 * 2 * 197**2 * 192)
    assert subject.flops == network_size("vit_tiny_patch16_224", 224).operations
    assert 0.14 < attention / subject.flops < 0.15
