#!/usr/bin/env bash
# Runs the workspace's Rust tests: by cargo-nextest where it is installed, otherwise by `cargo test`.
# With CODECAST_E2E=1 the long tests (marked #[ignore]) run too, and the tests that can last longer do.
set -euo pipefail
long=${CODECAST_E2E:-0}

# The server looks for its helper program beside itself.
cargo build --locked --package codecast-transcode

if cargo nextest --version >/dev/null 2>&1; then
    [ "$long" = 0 ] && choice=() || choice=(--profile e2e --run-ignored all)
    cargo nextest run --locked --workspace "${choice[@]}"
    # nextest leaves the examples in the documentation to cargo.
    cargo test --locked --workspace --doc
else
    printf "cargo-nextest is not installed: using 'cargo test', which is slower and says less.\n"
    [ "$long" = 0 ] && choice=() || choice=(-- --include-ignored)
    cargo test --locked --workspace "${choice[@]}"
fi
