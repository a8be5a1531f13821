#!/usr/bin/env bash
# `make audit`: checks all dependencies against deny.toml. Security advisories are checked too where their
# database can be reached (ADVISORIES=1), since not every machine may fetch it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/.."

cargo deny --version >/dev/null 2>&1 || refuse "cargo-deny is not installed; only 'make audit' needs it." "cargo install --locked cargo-deny"
checks=(bans licenses sources)
[ "${ADVISORIES:-0}" = 0 ] || checks+=(advisories)
cargo deny --locked --workspace check "${checks[@]}"
