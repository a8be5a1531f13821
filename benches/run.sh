#!/usr/bin/env bash
# The benchmarks of `make bench`: release build, the cores by criterion, then the whole server under load, beside a
# reference on the same machine, the same clip and in the same run. Writes docs/results/bench-DATE.md and prints it.
#
#   benches/run.sh [--quick] [--webrtc]
#
# --quick: 15 s a run instead of 60, 50 viewers at most. --webrtc: that part alone, in docs/results/bench-webrtc-DATE.md.
# Loopback only. Every process it starts ends with it, by its own pid.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."

seconds=60 viewers=1,500 followers=100 parts='cores_part load_part webrtc_part' report=bench packages='-p benches'
# shellcheck source=benches/webrtc.sh
. "$here/webrtc.sh"
for option in "$@"; do
    case $option in
        --quick) seconds=15 viewers=1,50 followers=10 rounds=1 watched=10 joins=8 ;;
        --webrtc) parts=webrtc_part report=bench-webrtc packages='' ;;
        *)
            echo "usage: benches/run.sh [--quick] [--webrtc]" >&2
            exit 2
            ;;
    esac
done

work=$(mktemp -d)
results=$work/results
mkdir -p "$results"
started=()
finish() {
    local pid
    for pid in "${started[@]}"; do end "$pid"; done
    rm -rf "$work"
}
trap finish EXIT

stage() { printf '\n==> %s\n' "$*" >&2; }

# Runs a command, keeps its line of JSON as NAME and its command line beside it.
keep() {
    local name=$1
    shift
    printf '%s ' "${@#"$work"/}" | sed -E "s#$work/##g; s#target/release/##g" >"$results/$name.command"
    "$@" | tee "$results/$name.json" >&2
}

# Ends one of ours and waits for it.
end() {
    kill "$1" 2>/dev/null || return 0
    wait "$1" 2>/dev/null || true
}

# Starts codecast on free ports; its pid is in $server, its addresses in $work/ready.json.
start_codecast() {
    rm -rf "$work/data" "$work/ready.json"
    target/release/codecast serve --config "$work/codecast.toml" --data-dir "$work/data" --ready-file "$work/ready.json" \
        >"$work/codecast.log" 2>&1 &
    server=$!
    started+=("$server")
    for _ in $(seq 100); do
        if [ -s "$work/ready.json" ]; then return; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    tail -20 "$work/codecast.log" >&2
    echo "codecast did not become ready" >&2
    exit 1
}

# A port that nobody listens on now: the references cannot take any by themselves.
free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 10000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    return 1
}

# nginx with its RTMP module: the machine's own, else Debian's packages unpacked without installing them, so that no
# daemon starts and no root is needed. Sets $nginx and $module, or leaves them empty.
find_nginx() {
    nginx='' module=''
    local tools=target/bench-tools
    if [ ! -e "$tools/usr/sbin/nginx" ] && ! command -v /usr/sbin/nginx >/dev/null && command -v apt-get >/dev/null; then
        mkdir -p "$tools"
        (cd "$tools" && apt-get download nginx libnginx-mod-rtmp >/dev/null 2>&1 && for deb in *.deb; do dpkg -x "$deb" .; done) || true
    fi
    local root
    for root in '' "$PWD/$tools"; do
        if [ -x "$root/usr/sbin/nginx" ] && [ -e "$root/usr/lib/nginx/modules/ngx_rtmp_module.so" ]; then
            nginx=$root/usr/sbin/nginx module=$root/usr/lib/nginx/modules/ngx_rtmp_module.so
        fi
    done
}

start_nginx() {
    port=$(free_port)
    mkdir -p "$work/nginx/hls"
    cat >"$work/nginx/nginx.conf" <<CONF
load_module $module;
daemon off; master_process off; pid $work/nginx/pid; error_log $work/nginx/error.log;
events { worker_connections 512; }
rtmp { server { listen 127.0.0.1:$port; chunk_size 4096; access_log off;
  application live { live on; hls on; hls_path $work/nginx/hls; hls_fragment 2s; hls_playlist_length 16s; } } }
CONF
    "$nginx" -e stderr -p "$work/nginx" -c "$work/nginx/nginx.conf" 2>/dev/null &
    server=$!
    started+=("$server")
    sleep 0.5
}

cores_part() {
    stage "The cores"
    CARGO_INCREMENTAL=0 cargo bench --locked -p benches -- --warm-up-time 1 2>&1 | tee "$results/criterion.txt" >&2
}

load_part() {
    stage "One 1080p30 stream of 4 Mbit/s, published for $seconds s"
    "$load" clip --size 1920x1080 --kbps 4000 --clip-seconds 10 --out "$work/clip.flv" >&2
    start_codecast
    keep publish-codecast "$load" publish --ready-file "$work/ready.json" --file "$work/clip.flv" --seconds "$seconds" --pid "$server"
    end "$server"
    find_nginx
    if [ -n "$nginx" ]; then
        start_nginx
        keep publish-nginx-rtmp "$load" publish --rtmp "rtmp://127.0.0.1:$port/live" --key bench --file "$work/clip.flv" \
            --seconds "$seconds" --pid "$server"
        end "$server"
    else
        echo "nginx with libnginx-mod-rtmp is not here: no reference in this run" >&2
    fi
    if command -v mediamtx >/dev/null; then
        port=$(free_port) hls=$(free_port)
        env MTX_RTMPADDRESS="127.0.0.1:$port" MTX_HLSADDRESS="127.0.0.1:$hls" MTX_HLSALWAYSREMUX=yes MTX_RTSP=no MTX_WEBRTC=no MTX_SRT=no \
            mediamtx >"$work/mediamtx.log" 2>&1 &
        server=$!
        started+=("$server")
        sleep 1
        keep publish-mediamtx "$load" publish --rtmp "rtmp://127.0.0.1:$port/live" --key bench --file "$work/clip.flv" \
            --seconds "$seconds" --pid "$server"
        end "$server"
    fi

    stage "From a part's last byte in to its playlist out"
    start_codecast
    keep release "$load" release --ready-file "$work/ready.json" --viewers "$viewers" --seconds $((seconds / 3)) --pid "$server"
    end "$server"

    stage "$followers viewers at the live edge"
    start_codecast
    "$load" publish --ready-file "$work/ready.json" --file "$work/clip.flv" --seconds $((seconds + 10)) >/dev/null &
    publisher=$!
    started+=("$publisher")
    sleep 3
    for how in '' --delta; do
        keep "follow${how#-}" "$load" follow --ready-file "$work/ready.json" --viewers "$followers" --gzip $how --seconds $((seconds / 3)) \
            --pid "$server"
    done
    end "$publisher"
    end "$server"

    stage "How steady the timed publisher is"
    start_codecast
    for n in 1 2 3 4 5; do
        keep "timed-$n" target/release/timed-publisher --url "$(ready rtmp)" --key "$(ready stream_key)" --seconds 5
        sed -i -E 's/(--key) [^ ]+/\1 .../; s#rtmp://[^ ]+#rtmp://127.0.0.1:PORT/live#' "$results/timed-$n.command"
    done
    end "$server"
}

stage "Release build"
# shellcheck disable=SC2086  # words
CARGO_INCREMENTAL=0 cargo build --release --locked -p codecast -p codecast-transcode -p timed-publisher $packages
load=target/release/codecast-load
printf '[http]\naddress = "127.0.0.1:0"\n[rtmp]\naddress = "127.0.0.1:0"\n[srt]\naddress = "off"\n[tls]\nhttps_address = "off"\nrtmps_address = "off"\n[webrtc]\naddress = "127.0.0.1:0"\n[log]\nlevel = "warn"\n' \
    >"$work/codecast.toml"
for part in $parts; do "$part"; done

mkdir -p docs/results
report=docs/results/$report-$(date -u +%F).md
node benches/report.mjs "$results" "benches/run.sh $*" >"$report"
cat "$report"
