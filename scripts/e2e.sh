#!/usr/bin/env bash
# `make e2e`: the Rust tests including the long ones. Leaves its summary in docs/results/e2e.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/.."
export CARGO_INCREMENTAL=0 CODECAST_E2E=1

"$here/prepare-tests.sh"
"$here/install-packages.sh" e2e
"$here/pip-install.sh" tests/requirements-e2e.txt e2e-venv "aiortc, a WebRTC of its own kind"
"$here/build-gst-webrtchttp.sh"
stage "Rust tests, the long ones too"
"$here/record.sh" e2e "make e2e" "$here/rust-tests.sh"
