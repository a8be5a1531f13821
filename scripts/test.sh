#!/usr/bin/env bash
# `make test`: all that a change must pass. Installs what is missing, builds once, runs every test that fits the budget
# of one hour on two cores. The longer tests are `make e2e`. Stops at the first stage that fails.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/.."

# One target folder and one profile for clippy and the tests, and no incremental files: half the disk, no second build.
export CARGO_INCREMENTAL=0

"$here/prepare-tests.sh"

stage "cargo fmt"
cargo fmt --all --check

stage "cargo clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings

stage "The test tools' own tests"
python3 -B -m unittest discover --start-directory tests/tools --pattern 'test_*.py'
node --test tests/tools/latency/timecode.test.mjs

stage "Rust tests"
"$here/rust-tests.sh"

stage "The watch page's tests"
npm --prefix web test

stage "All green"
