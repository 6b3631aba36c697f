"""Two ways to stop quantized weights from oscillating between levels (Nagel et al., ICML 2022).

A weight oscillates where its code changes and then changes back: its latent weight is driven over the
same transition point again and again. `Dampening` pulls latent weights to the middle of their interval;
`Freezing` stops those that oscillate too often. Both attach to any plain optimizer.
"""
