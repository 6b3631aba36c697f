#!/usr/bin/env bash
# ray.cancel does nothing, and says nothing, where the cluster was started in a shell's background.
#
# Guess:    `ray.cancel(task)` raises KeyboardInterrupt in the task, as its documentation says, however the
#           cluster was started.
# Observed: ray 2.60.0. Workers inherit the signals that their starter ignores. A shell script ignores SIGINT
#           in what it starts by `&`, and there a cancelled task sleeps on to its end and returns its value;
#           from a starter that does not ignore SIGINT the same task ends at once with TaskCancelledError.
#           Neither case warns.
# So:       let a task that is to be cancelled set the handler of SIGINT itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray==2.60.0
cat > "$folder/try.py" <<'PYTHON'
import os
import signal
import sys
import time

ignored = sys.argv[1] == "ignored"
signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)


@ray.remote(max_retries=0)
def task(path):
    open(path, "w").close()
    end = time.monotonic() + 15
    while time.monotonic() < end:  # so that Python looks for signals
        time.sleep(0.1)
    return "slept to its end"


begun = f"{sys.argv[2]}/begun-{sys.argv[1]}"
reference = task.remote(begun)
while not os.path.exists(begun):
    time.sleep(0.1)
ray.cancel(reference)
start = time.monotonic()
try:
    found = ray.get(reference)
except ray.exceptions.TaskCancelledError:
    found = "cancelled"
seconds = time.monotonic() - start
print(f"SIGINT {sys.argv[1]} by the starter: {found} after {seconds:.0f} s")
ray.shutdown()
expected = found == "slept to its end" and seconds > 8 if ignored else found == "cancelled" and seconds < 8
sys.exit(0 if expected else "changed")
PYTHON
for how in heard ignored; do
  "$folder/venv/bin/python" "$folder/try.py" "$how" "$folder" 2>"$folder/log" || { tail -3 "$folder/log"; exit 1; }
done
