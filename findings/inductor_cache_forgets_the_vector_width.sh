#!/usr/bin/env bash
# PyTorch's cache of compiled graphs forgets the vector width: half the values of a shared kernel are wrong.
#
# Guess:    Inductor's cache is keyed by all that decides the code, the CPU's vector width among it, since caches
#           are shared (TORCHINDUCTOR_CACHE_DIR) and torch honours ATEN_CPU_CAPABILITY when it compiles.
# Observed: with torch 2.14.1 on a CPU with AVX-512, a function of 600 numbers compiled as usual, and then again
#           in a process limited to AVX2 that shares the cache, returns other values than the eager function for
#           272 of the 600, without a message. The cached C++ steps by 16 numbers and is compiled with
#           vectors of 8. With a cache of its own, or TORCHINDUCTOR_FX_GRAPH_CACHE=0, none differs.
# So:       give each kind of CPU its own cache, or name the width in the options that are part of the key
#           (torch.compile(..., options={"cpp.simdlen": 256})).
set -euo pipefail
if ! grep -q -w avx512f /proc/cpuinfo; then
  echo "this CPU has no AVX-512, so there is only one width to choose: nothing was tried"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 setuptools==84.0.0 torch==2.14.1
cat > "$folder/compare.py" <<'PYTHON'
import torch

torch.manual_seed(0)
torch.set_num_threads(1)
x = torch.randn(600)


def function(x):
    return (x * 2 + 1).round().clamp(-8, 7)


differ = (torch.compile(function)(x) != function(x)).sum().item()
print(torch.backends.cpu.get_cpu_capability(), "differs" if differ else "agrees", differ)
PYTHON
run() { env OMP_NUM_THREADS=1 "$@" "$folder/venv/bin/python" "$folder/compare.py"; }
first=$(run TORCHINDUCTOR_CACHE_DIR="$folder/shared")
shared=$(run TORCHINDUCTOR_CACHE_DIR="$folder/shared" ATEN_CPU_CAPABILITY=avx2)
own=$(run TORCHINDUCTOR_CACHE_DIR="$folder/own" ATEN_CPU_CAPABILITY=avx2)
printf '%s\n' "$first" "$shared (shared cache)" "$own (own cache)"
[[ $first == "AVX512 agrees"* && $shared == "AVX2 differs"* && $own == "AVX2 agrees"* ]] || {
  echo "not as observed"
  exit 1
}
