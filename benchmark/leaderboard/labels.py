"""Notes and labels shared by every output format."""

NOTE = (
    "Mean over seeds ± standard deviation; a dagger marks a single seed, a double dagger several jobs "
    "of one seed, averaged first. The small number is the rank: 1 + how many rows are found better, over "
    "seeds and test images together (Tukey's range, 5 %). In tables of methods the first group is bold. "
    "Elsewhere rows are checkpoints, each one pretraining, and the first group is in italics: the rank "
    "says which of these files is better, and nothing of the methods behind them."
)
ONE_PRETRAINING = "¶"  # marks the number of a method that has a single pretraining
METHODS = (
    f"Mean over pretrainings ± their standard deviation. {ONE_PRETRAINING} a single pretraining: what one "
    "file scores, without a rank. The rank is 1 + how many methods are found better, over pretrainings "
    "and test images together, paired by image where predictions are kept, detectors by random halves of "
    "the images (Tukey's range, 5 %)."
)
METHOD_MEANS = (
    "Each data set and each pretraining counts once; ± is the standard deviation over pretrainings. The "
    "rank is 1 + how many methods are found better, over pretrainings and data sets together, paired by "
    "data set (Tukey's range, 5 %)."
)
FILES_ONLY = (
    "No method has several pretrainings here: ranks say which file is better, not which method. Give "
    "the suite `pretrain_seeds` to compare methods."
)
SENT = (
    "Of the numbers that others sent, verified ones follow from the predictions that came with them; "
    "self-reported ones are the sender's word and have no rank."
)
PRETRAININGS = "pretrainings"  # what an interval of a method is over
SHARED_SEEDS = "‡"  # marks a number that several jobs of one seed gave
ROUNDED = "≈"  # marks a number of which rounding decides more than a little
ROUNDING_NOTE = (
    f"{ROUNDED}: rounding alone decides at least 1 % of these predictions, as float32 and float64 compared "
    "say; another machine may give another number."
)
ZERO_SHOT = "§"  # marks a precision that a network was not trained at
NOTHING = "There is no result to show: no job has finished with a number yet."
TASK_TITLES = {
    "classification": "Classification",
    "detection": "Detection",
    "deployment": "Integer inference",
}
DEPLOYMENT = (
    "Networks exported as graphs of integers and run on one machine. Numbers of another runtime, version, "
    "machine, data set or protocol are in another table and not comparable. Accuracy: of the graph. Size: of the "
    "file; packed: with weights of at most four bits in four. Latency: a batch of 1 or 8 over the same "
    "network's full precision in the same runtime, in turns; in brackets the quartiles over the rounds of "
    "timing, which say how steady they were and are no confidence interval; FP against itself shows the "
    "timing's noise. Integer layers: convolutions and linear layers that the runtime's own graph computes on "
    "integers. Agreement: predictions equal to the simulation's; noise floor: the simulation's own in "
    "float64. Of a detector the graph is backbone and pyramid: sizes, times and layers are of it, AP is of the "
    "whole; agreement: detections of score 0.5 and more that the simulation shares, of the same class and with "
    "an IoU of 0.9. Costs are means over seeds."
)
DECIDES_OTHERWISE = (
    "This runtime's graph decides otherwise than the simulation more often than rounding in float32 "
    "explains: {networks}."
)
SATURATES = (
    "Sums of 8-bit products saturate in this runtime on this processor: accuracy and agreement of its "
    "integer layers may be lower than elsewhere."
)
