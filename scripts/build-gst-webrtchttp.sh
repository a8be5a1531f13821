#!/usr/bin/env bash
# Builds GStreamer's whipsink and whepsrc, which Debian does not package, into target/gst-webrtchttp. Two to three minutes,
# once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/../tests/tools/gst-webrtchttp"

into=../../../target/gst-webrtchttp
stage "GStreamer's WHIP and WHEP clients: target/gst-webrtchttp"
CARGO_INCREMENTAL=0 cargo build --locked --target-dir "$into"
# GStreamer takes the name of a plugin from its file, and no other library of the folder for one.
mkdir -p "$into/plugin"
install "$into/debug/libcodecast_gst_webrtchttp.so" "$into/plugin/libgstwebrtchttp.so"
