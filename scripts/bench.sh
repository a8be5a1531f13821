#!/usr/bin/env bash
# `make bench`: the cores and the whole server under load, built with optimisation. Leaves docs/results/bench-DATE.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/.."

"$here/check-toolchain.sh"
"$here/install-packages.sh" test
"$here/npm-install.sh" tests "a driver for Chromium, the players, and the forwarder that latency is compared with"
"$here/build-web.sh"
exec benches/run.sh "$@"
