# shellcheck shell=bash disable=SC2154  # what benches/run.sh, which sources this, has set
# The WebRTC part of benches/run.sh: glass to glass by WHIP beside a forwarder that does nothing, RTMP to WHEP, and joins.
# All pictures carry the time at which they were made; viewers are a bare WHEP player in Chromium, the same for all servers.

# Runs that take turns between server and forwarder, so that neither gets the quiet half of a machine.
rounds=3 watched=30 joins=30
# libdatachannel fails on the candidates of a browser in one start of six.
attempts=6
# The time until pictures come at their usual rate and size.
warmup=5

# A field of the ready file.
ready() { node -p "JSON.parse(require('fs').readFileSync('$work/ready.json'))['$1']"; }

# Waits until FILE has a line with TEXT, or the process PID is gone.
wait_for() {
    local file=$1 text=$2 pid=$3
    for _ in $(seq 300); do
        if grep -qF "$text" "$file" 2>/dev/null; then return; fi
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

# What a viewer of the WHEP endpoint URL sees, kept as NAME. A failure is a missing figure, not the end of the run.
watch() {
    local name=$1 url=$2
    WARMUP_S=$warmup keep "$name" node tests/tools/play.mjs whep "$url" "$((watched + warmup))" || echo "$name: no figure" >&2
    sed -i -E "s#http://[^/]+#http://127.0.0.1:PORT#; s#^#WARMUP_S=$warmup #" "$results/$name.command"
}

# A browser publishes 720p30 by WHIP to the server at BASE, and another one watches. Pictures alone, or with sound: where
# the server tells how the two belong together, a browser lets pictures wait for their sound.
browser_to_browser() {
    local name=$1 base=$2 stream=$3 key=$4 log=$work/publisher.log
    local settings=("$((watched + 60))" --source time --size 1280x720 --bitrate 2500 --no-delete)
    [[ $name = whip-sound-* ]] || settings+=(--no-audio)
    echo "node tests/tools/webrtc-publish.mjs http://127.0.0.1:PORT $stream KEY ${settings[*]}" >"$results/${name%-*}-source.command"
    node tests/tools/webrtc-publish.mjs "$base" "$stream" "$key" "${settings[@]}" >"$log" 2>&1 &
    publisher=$!
    started+=("$publisher")
    local status=0
    if wait_for "$log" '"live":true' "$publisher"; then
        watch "$name" "$base/whep/$stream"
        read_frames "$name" || status=1
    else
        status=1
    fi
    end "$publisher"
    return $status
}

# Whether a kept run has figures.
read_frames() { node -e 'process.exit(JSON.parse(require("fs").readFileSync(process.argv[1])).latencyMs ? 0 : 1)' "$results/$1.json" 2>/dev/null; }

round_of_codecast() {
    start_codecast
    browser_to_browser "$1" "$(ready http)" "$(ready stream)" "$(ready stream_key)" || true
    end "$server"
}

round_of_the_forwarder() {
    local log=$work/forwarder.log base
    for attempt in $(seq "$attempts"); do
        node tests/tools/webrtc-forwarder.mjs >"$log" 2>&1 &
        server=$!
        started+=("$server")
        wait_for "$log" '"http"' "$server" || continue
        base=$(node -p "JSON.parse(require('fs').readFileSync('$log', 'utf8').split('\n')[0]).http")
        if browser_to_browser "$1" "$base" bench none; then
            end "$server"
            return
        fi
        end "$server"
        echo "attempt $attempt: the forwarder did not connect" >&2
    done
    echo "the forwarder did not connect in $attempts starts: no reference in this round" >&2
}

# Starts codecast, and the timed publisher for SECONDS with further OPTIONS.
publish_timed() {
    local name=$1 length=$2
    shift 2
    local settings=(--size 1280x720 --kbps 2500 --seconds "$length" "$@")
    echo "timed-publisher --url rtmp://127.0.0.1:PORT/live --key KEY ${settings[*]}" >"$results/source-$name.command"
    start_codecast
    target/release/timed-publisher --url "$(ready rtmp)" --key "$(ready stream_key)" "${settings[@]}" >"$results/source-$name.json" 2>&1 &
    publisher=$!
    started+=("$publisher")
    for _ in $(seq 300); do
        if curl -sf -o "$work/playlist" "$(ready http)/live/$(ready stream)/index.m3u8"; then return; fi
        sleep 0.1
    done
}

# The publisher tells its own delays when it is asked to end.
end_timed() {
    end "$publisher"
    end "$server"
}

rtmp_to_whep() {
    local name=$1
    shift
    publish_timed "$name" $((watched + 90)) "$@"
    watch "$name" "$(ready http)/whep/$(ready stream)"
    end_timed
}

join_often() {
    local gop=$1
    publish_timed "joins-$gop" $((joins * (gop + 4) + 60)) --gop-seconds "$gop"
    GOP_MS=$((gop * 1000)) keep "joins-$gop" node tests/tools/latency/joins.mjs whep "$(ready http)/whep/$(ready stream)" "$joins" ||
        echo "joins-$gop: some failed" >&2
    sed -i -E "s#http://[^/]+#http://127.0.0.1:PORT#; s#^#GOP_MS=$((gop * 1000)) #" "$results/joins-$gop.command"
    end_timed
}

webrtc_part() {
    local round kind
    for round in $(seq "$rounds"); do
        for kind in whip whip-sound; do
            stage "WHIP to WHEP in Chromium, 720p30, $watched s ($kind): round $round of $rounds, codecast, then the forwarder"
            round_of_codecast "$kind-codecast-$round"
            round_of_the_forwarder "$kind-forwarder-$round"
        done
    done
    stage "RTMP to WHEP, 720p30, $watched s: without B-frames, then with them"
    rtmp_to_whep rtmp
    rtmp_to_whep rtmp-bframes --bframes
    stage "First picture by WHEP, $joins joins each, with a keyframe every 2 s and every 8 s"
    join_often 2
    join_often 8
}
