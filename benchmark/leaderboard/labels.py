"""Notes and labels shared by every output format."""

NOTE = (
    "Mean over seeds ± standard deviation; a dagger marks a single seed, a double dagger several jobs "
    "of one seed, averaged first. The small number is the rank: "
    "1 + how many rows are found better (Tukey-Kramer, 5 %); the first group is bold."
)
SENT = (
    "Of the numbers that others sent, verified ones follow from the predictions that came with them; "
    "self-reported ones are the sender's word and have no rank."
)
SHARED_SEEDS = "‡"  # marks a number that several jobs of one seed gave
ROUNDED = "≈"  # marks a number of which rounding decides more than a little
ROUNDING_NOTE = (
    f"{ROUNDED}: rounding alone decides at least 1 % of these predictions, as float32 and float64 compared "
    "say; another machine may give another number."
)
ZERO_SHOT = "§"  # marks a precision that a network was not trained at
NOTHING = "There is no result to show: no job has finished with a number yet."
TASK_TITLES = {"classification": "Classification", "detection": "Detection"}
