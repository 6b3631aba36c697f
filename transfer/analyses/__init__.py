"""What the papers show beside accuracy, each as numbers (a pandas frame) and a picture of them.

    rows         the training curve that protocol qat writes: what an epoch's row holds
    runs         these curves of several jobs, as frames
    transitions  TR Fig. 1, S1, S3-S5: how a transition-rate schedule moves quantized weights

Not imported by `transfer` itself: only this package needs matplotlib.
"""
