#!/usr/bin/env bash
# How well code can be read in what a running CodeCast sends: for each clip and each ladder it starts a server, publishes
# the clip in a loop, follows every rung, records one loop of each, and scores them when the server has ended. Prints
# tables and writes them to docs/results/legibility-DATE.md.
#
#   benches/legibility/run.sh [--ladder legible,motion] [--clips code,light,terminal,camera] [--codecast PROGRAM]
#
# --ladder: values of the server's `ladder`; the first is compared with each of the others. `none` writes no such key:
# what a server without one sends. `ffmpeg-legible` and `ffmpeg-motion` are no server at all: the same by ffmpeg alone.
# --clips: of those below, or `all`. --codecast: a program that is there, instead of a release build.
# About 75 s for a clip and a ladder, and 30 s to score. Loopback only. Every process it starts ends with it, by its own pid.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

# A name, and what generate.py is told.
clips_known='code:
light: --theme light
terminal: --scene terminal
camera: --camera room
snow: --camera snow
small: --size 14
large: --size 20
liberation: --font liberation
jetbrains: --font jetbrains
hack: --font hack'
loop=20

usage() {
    sed -n '6p' "$0" | cut -c5- >&2
    exit 2
}

command="benches/legibility/run.sh $*" ladders=legible,motion clips=code,light,terminal,camera codecast=''
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --ladder) ladders=$2 ;;
        --clips) clips=$2 ;;
        --codecast) codecast=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[ "$clips" != all ] || clips=$(cut -d: -f1 <<<"$clips_known" | paste -sd,)
IFS=, read -ra ladders <<<"$ladders"
IFS=, read -ra clips <<<"$clips"
for clip in "${clips[@]}"; do
    grep -q "^$clip:" <<<"$clips_known" || usage
done

work=$(mktemp -d)
started=()
finish() {
    local pid
    for pid in "${started[@]}"; do end "$pid"; done
    rm -rf "$work"
}
trap finish EXIT

stage() { printf '\n==> %s\n' "$*" >&2; }

# Ends one of ours, if it still is, and waits for it.
end() {
    grep -qs "^PPid:[[:space:]]*$$\$" "/proc/$1/status" || return 0
    kill "$1" 2>/dev/null || return 0
    wait "$1" 2>/dev/null || true
}

# Waits until a command succeeds, for as long as the process PID lives and two minutes at most.
wait_for() {
    local pid=$1
    shift
    for _ in $(seq 600); do
        if "$@"; then return; fi
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.2
    done
    return 1
}

# A field of the ready file.
ready() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/ready.json" "$1"; }

# The server's configuration: the one place that knows how a ladder is asked for.
configuration() {
    printf '[%s]\naddress = "127.0.0.1:0"\n' http rtmp webrtc
    printf '[srt]\naddress = "off"\n[tls]\nhttps_address = "off"\nrtmps_address = "off"\n[log]\nlevel = "warn"\n'
    [ "$1" = none ] || printf '[transcode]\nladder = "%s"\n' "$1"
}

# Starts codecast with a ladder and publishes CLIP in a loop. Sets $url, $publisher and $server.
start_codecast() {
    local ladder=$1 clip=$2
    rm -rf "$work/data" "$work/ready.json"
    configuration "$ladder" >"$work/codecast.toml"
    "$codecast" serve --config "$work/codecast.toml" --data-dir "$work/data" --ready-file "$work/ready.json" >"$work/codecast.log" 2>&1 &
    server=$!
    started+=("$server")
    wait_for "$server" test -s "$work/ready.json" || fail "codecast did not become ready" "$work/codecast.log"
    ffmpeg -v error -nostdin -re -stream_loop -1 -i "$clip" -c copy -f flv "$(ready rtmp)/$(ready stream_key)" >"$work/publisher.log" 2>&1 &
    publisher=$!
    started+=("$publisher")
    url=$(ready http)/live/$(ready stream)/index.m3u8
    wait_for "$publisher" curl -sf -o "$work/index.m3u8" "$url" || fail "nothing is played" "$work/publisher.log" "$work/codecast.log"
}

# The same ladder by ffmpeg, as files. Sets $url and $server.
start_reference() {
    local ladder=$1 clip=$2 said=$work/reference.url
    rm -rf "$work/reference" "$said"
    "$python" -B "$here/reference.py" "$clip" "$work/reference" --ladder "$ladder" >"$said" &
    server=$!
    started+=("$server")
    wait_for "$server" test -s "$said" || fail "ffmpeg made no ladder"
    url=$(cat "$said")
}

fail() {
    echo "$1" >&2
    shift
    [ $# -eq 0 ] || tail -n 20 "$@" >&2
    exit 1
}

# Records every rung of LADDER with CLIP. A rung without a whole loop is told of and scored as far as it goes.
record() {
    local ladder=$1 clip=$2 warm_up=$((2 * loop))
    publisher=''
    case $ladder in
        ffmpeg-*)
            start_reference "${ladder#ffmpeg-}" "$work/$clip.mp4"
            warm_up=$loop
            ;;
        *) start_codecast "$ladder" "$work/$clip.mp4" ;;
    esac
    "$python" -B "$here/record.py" "$url" "$work/$clip/$ladder" --seconds "$loop" --warm-up "$warm_up" >&2 ||
        echo "$clip, $ladder: not every rung has a whole loop" | tee -a "$work/short" >&2
    [ -z "$publisher" ] || end "$publisher"
    end "$server"
    [ -z "$publisher" ] || grep -E ' (WARN|ERROR) ' "$work/codecast.log" | tail -n 5 >&2 || true
}

# The tables of one clip, whose recordings are there.
tables() {
    local clip=$1 options=$2 ladder first=${ladders[0]}
    printf '\n## %s (`generate.py%s`)\n\n' "$clip" "$options"
    for ladder in "${ladders[@]}"; do
        "$python" -B "$here/score.py" score "$work/$clip.npz" "$work/$clip/$ladder" >"$work/table"
        # One head for all of them.
        if [ "$ladder" = "$first" ]; then cat "$work/table"; else tail -n +3 "$work/table"; fi
    done
    for ladder in "${ladders[@]:1}"; do
        echo
        "$python" -B "$here/score.py" compare "$work/$clip/$first" "$work/$clip/$ladder"
    done
}

scripts/install-packages.sh legibility
scripts/pip-install.sh benches/legibility/requirements.txt legibility-venv "numbers, pictures and distances of the legibility bench"
python=$PWD/.tools/legibility-venv/bin/python
# Two renditions are scored at once: a thread each.
export OPENBLAS_NUM_THREADS=1

stage "Whether the bench reads what it should"
"$python" -B -m unittest discover -s "$here"

# Ladders that are a server's.
if [ -z "$codecast" ] && printf '%s\n' "${ladders[@]}" | grep -qv '^ffmpeg-'; then
    stage "Release build"
    scripts/check-toolchain.sh
    scripts/build-web.sh
    CARGO_INCREMENTAL=0 cargo build --release --locked -p codecast -p codecast-transcode
    codecast=target/release/codecast
fi

report=$work/report.md
{
    printf '# Legibility of %s\n\nCommand: `%s`. Machine: %s x %s, Linux %s.\n' "$(date -u +%F)" "$command" "$(nproc)" \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(uname -r)"
    printf 'What each figure means: benches/README.md and `benches/legibility/score.py --help`.\n'
} >"$report"
for clip in "${clips[@]}"; do
    options=$(sed -n "s/^$clip://p" <<<"$clips_known")
    stage "The clip '$clip'"
    # shellcheck disable=SC2086  # words
    "$python" -B "$here/generate.py" "$work/$clip" $options >&2
    for ladder in "${ladders[@]}"; do
        stage "$clip, $ladder: two loops to warm up, one to record"
        record "$ladder" "$clip"
    done
    stage "$clip: reading"
    tables "$clip" "$options" | tee -a "$report" >&2
    # A minute of video each; what is scored is not needed any more.
    rm -rf "${work:?}/$clip" "$work/$clip.mp4"
done
if [ -s "$work/short" ]; then
    printf '\nNot whole:\n\n' >>"$report"
    sed 's/^/- /' "$work/short" >>"$report"
fi

mkdir -p docs/results
mv "$report" "docs/results/legibility-$(date -u +%F).md"
cat "docs/results/legibility-$(date -u +%F).md"
