#!/usr/bin/env bash
# fvcore's step schedule falls before its milestone when a training has more than a million updates.
#
# Guess:    MultiStepParamScheduler(values, milestones=[m], num_updates=n), asked at update i as Detectron2
#           does, with where = i / n, gives the first value for i < m and the second from i = m on, whatever n.
# Observed: fvcore 0.1.5.post20221221 adds 1e-6 to `where` before it multiplies by num_updates, to be safe from
#           rounding. The fall therefore comes n * 1e-6 updates early once that is a whole update or more:
#           exact at n = 900,000, 1 update early at n = 1,000,000 and 1,500,000, 3 early at 3,000,000, 10 early
#           at 10,000,000. No warning.
# So:       a schedule counted in updates is not exact beyond a million of them; a resumed or compared training
#           that decays at the milestone itself differs from one that uses this class.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps fvcore==0.1.5.post20221221
cd "$folder"
cat > early.py <<'PYTHON'
import sys

from fvcore.common.param_scheduler import MultiStepParamScheduler

SEEN = {900_000: 0, 1_000_000: 1, 1_500_000: 1, 3_000_000: 3, 10_000_000: 10}
changed = False
for updates, expected in SEEN.items():
    milestone = updates * 2 // 3
    schedule = MultiStepParamScheduler([1.0, 0.1], milestones=[milestone], num_updates=updates)
    first = next(i for i in range(milestone - 50, updates) if schedule(i / updates) == 0.1)
    print(f"{updates:>10,} updates: falls {milestone - first} before its milestone {milestone:,}")
    changed |= milestone - first != expected
sys.exit("not as observed" if changed else 0)
PYTHON
"$folder/venv/bin/python" early.py
