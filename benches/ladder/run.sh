#!/usr/bin/env bash
# What the ladder costs: a server with one publisher of 1080p30, four rungs and 50 viewers, then the same chain of GStreamer by
# gst-launch-1.0 that throws away what it makes, on the same clip. Prints a page and writes it to
# docs/results/ladder-cost-DATE.md.
#
#   benches/ladder/run.sh [--seconds 60] [--viewers 50] [--programs FOLDER]
#
# --programs: a folder of programs that are there, instead of a release build.
# Two minutes behind a release build. Loopback only. Every process it starts ends with it, by its own pid.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

[[ $* == *--programs* ]] || CARGO_INCREMENTAL=0 cargo build --release --locked -p codecast -p codecast-transcode -p benches
python3 -B "$here/measure.py" --command "benches/ladder/run.sh $*" "$@" | tee "docs/results/ladder-cost-$(date +%F).md"
