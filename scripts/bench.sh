#!/usr/bin/env bash
# `make bench`: the cores and the whole server under load, built with optimisation. Leaves docs/results/bench-DATE.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/.."

"$here/check-toolchain.sh"
"$here/build-web.sh"
exec benches/run.sh "$@"
