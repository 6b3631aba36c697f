"""The papers' analyses other than accuracy, each as a pandas frame and a figure.

    correlation  SSQL Fig. 10: quantization error against contrastive error, step by step
    weights      SSQL Fig. 7: how a checkpoint's weights are distributed, layer by layer
    tsne         Contrastive Quant Fig. 2: t-SNE of backbone features, by class and precision

Not imported by `pretrain` itself: only this package needs matplotlib.
"""
