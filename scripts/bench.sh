#!/usr/bin/env bash
# `make bench`: the benchmarks, built with optimisation. Leaves what they print in docs/results/bench.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/.."

"$here/check-toolchain.sh"
"$here/build-web.sh"
stage "Benchmarks"
"$here/record.sh" bench "make bench" cargo bench --locked --package benches
