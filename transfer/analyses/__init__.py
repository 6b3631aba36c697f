"""The papers' analyses other than accuracy, each as a pandas frame and a figure.

    rows         the training curve that protocol qat writes: what an epoch's row holds
    runs         these curves of several jobs, as frames
    transitions  TR Fig. 1, S1, S3-S5: how a transition-rate schedule moves quantized weights

Not imported by `transfer` itself: only this package needs matplotlib.
"""
