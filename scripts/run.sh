#!/usr/bin/env bash
# `make run`: installs and builds what is missing, then starts CodeCast with everything in one process.
# Arguments go to `codecast serve`. RELEASE=1 builds with full optimisation.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/.."

"$here/check-toolchain.sh"
"$here/build-web.sh"
"$here/install-packages.sh" transcoder

# The dev profile (opt-level 1) is on the screen minutes earlier and serves a few streams without effort.
profile=dev folder=debug
[ "${RELEASE:-0}" = 0 ] || profile=release folder=release
stage "Server: cargo build --profile $profile (the first time takes some minutes)"
cargo build --locked --profile "$profile" --package codecast --package codecast-transcode

# The commented reference is the configuration, unless another one is named. State goes to ./codecast-data by default.
config=(--config "${CODECAST_CONFIG:-configs/codecast.toml}")

# Not `cargo run`: signals must reach the server itself, so that Ctrl-C ends the playlists properly.
exec "${CARGO_TARGET_DIR:-target}/$folder/codecast" serve "${config[@]}" "$@"
