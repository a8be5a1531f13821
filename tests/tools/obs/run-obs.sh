#!/usr/bin/env bash
# Starts OBS Studio under Xvfb from files alone, streaming at once.
#   run-obs.sh WORKDIR RTMP_SERVER_URL STREAM_KEY [WEBSOCKET_PORT] [ENCODER_JSON]
#   e.g. run-obs.sh OBSDIR rtmp://127.0.0.1:1935/live mykey 4455
# Writes WORKDIR/obs.pid, WORKDIR/xvfb.pid and WORKDIR/display, and returns. Stop OBS first, with TERM: it ends its stream.
#   kill "$(cat WORKDIR/obs.pid)"; then the screen: kill "$(cat WORKDIR/xvfb.pid)"
# ENCODER_JSON changes the encoder's settings, e.g. '{"bf":0}'. The profile is Debian 12's OBS 29: x264 High, CBR 2500 kbit/s,
# a keyframe every 2 s, B-frames as x264 likes; AAC of 160 kbit/s, silent where there is no sound card.
# Environment: OBS_SIZE=1280x720, what is sent.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$1 server=$2 key=$3 wsport=${4:-4455} enc=${5:-}
mkdir -p "$work/config" "$work/run"; chmod 700 "$work/run"
cp -r "$here/obs-studio" "$work/config/"
size=${OBS_SIZE:-1280x720}
python3 - "$work/config/obs-studio" "$server" "$key" "$wsport" "$enc" "$size" <<'P'
import json, pathlib, sys
root, server, key, port, enc, size = sys.argv[1:]
root = pathlib.Path(root)
svc = root / "basic/profiles/Live/service.json"
d = json.loads(svc.read_text()); d["settings"].update(server=server, key=key); svc.write_text(json.dumps(d))
g = root / "global.ini"
g.write_text(g.read_text().replace("ServerPort=4455", f"ServerPort={port}"))
b = root / "basic/profiles/Live/basic.ini"
width, height = size.split("x")
b.write_text(b.read_text().replace("OutputCX=1280", f"OutputCX={width}").replace("OutputCY=720", f"OutputCY={height}"))
if enc:
    e = root / "basic/profiles/Live/streamEncoder.json"
    d = json.loads(e.read_text()); d.update(json.loads(enc)); e.write_text(json.dumps(d))
P
export XDG_CONFIG_HOME="$work/config" XDG_RUNTIME_DIR="$work/run"
export LIBGL_ALWAYS_SOFTWARE=1 QT_QPA_PLATFORM=xcb NO_AT_BRIDGE=1
# Xvfb chooses a free display number and writes it to fd 3.
exec 3>"$work/display"
Xvfb -displayfd 3 -screen 0 1280x800x24 -nolisten tcp +extension GLX >"$work/xvfb.log" 2>&1 &
echo $! >"$work/xvfb.pid"
exec 3>&-
# Ten seconds: a loaded machine takes two.
for _ in $(seq 100); do [ -s "$work/display" ] && break; sleep 0.1; done
[ -s "$work/display" ] || { echo "Xvfb did not start:"; cat "$work/xvfb.log"; exit 1; } >&2
DISPLAY=":$(cat "$work/display")"
export DISPLAY
obs --multi --disable-missing-files-check --profile Live --collection Live --scene Scene \
    --startstreaming --unfiltered_log --verbose >"$work/obs.log" 2>&1 &
echo $! >"$work/obs.pid"
echo "obs pid $(cat "$work/obs.pid") on display $DISPLAY"
