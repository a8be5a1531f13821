#!/usr/bin/env bash
# Installs the Debian packages of a task that are missing, and says which ones and why.
#
#   scripts/install-packages.sh compiler|transcoder|test|e2e|legibility|image
#
# When nothing is missing it asks dpkg once and is done: no network, no root. Otherwise it runs one `apt-get update`
# and one `apt-get install`, as root or through sudo. No daemon is started by a package while it runs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"

# "package: why it is needed", one a line.
packages_of() {
    case $1 in
        compiler) cat <<'LIST' ;;
gcc: links Rust programs
libc6-dev: the C library's headers
LIST
        transcoder) cat <<'LIST' ;;
gstreamer1.0-libav: H.264 and AAC for the transcoder
gstreamer1.0-plugins-bad: h264parse, and srtsrc for SRT
gstreamer1.0-plugins-base: Opus
gstreamer1.0-plugins-good: what the others lean on
gstreamer1.0-plugins-ugly: x264enc
libgstreamer-plugins-base1.0-dev: builds the transcoder
libgstreamer1.0-dev: builds the transcoder
pkg-config: finds them
LIST
        test) packages_of transcoder && cat <<'LIST' ;;
chromium: plays the streams with hls.js, Shaka and our own page
curl: asks by HTTPS
ffmpeg: publishes over RTMP, and checks with ffprobe what comes out
fonts-dejavu-core: the text in the picture that OBS sends
gstreamer1.0-tools: gst-launch-1.0
iproute2: ss, to see a test's connections
libgl1-mesa-dri: draws OBS without a graphics card
libssl-dev: OpenSSL for the independent RTMP publisher of the tests (crate rtmp)
openssl: certificates for the tests of TLS
obs-plugins: x264 and RTMP for OBS
obs-studio: the broadcaster's program, the real one
pebble: an ACME directory, which gives certificates to the tests alone
procps: ps, to measure memory
python3: the LL-HLS checker
python3-venv: a newer ffmpeg, which publishes by WHIP
xvfb: a screen for OBS where there is none
LIST
        e2e) packages_of test && cat <<'LIST' ;;
gir1.2-gstreamer-1.0: GStreamer for Python
gstreamer1.0-nice: ICE of GStreamer's WHIP and WHEP clients
libgstreamer-plugins-bad1.0-dev: builds those clients
mpv: a player of HLS
python3-gi: GStreamer for Python, to count what its clients decode
vlc-bin: a player of HLS
vlc-plugin-base: what VLC reads and decodes with
LIST
        legibility) packages_of transcoder && cat <<'LIST' ;;
curl: asks whether a stream is there
ffmpeg: makes the clips, publishes them, and decodes what is recorded
fonts-dejavu-core: the text of the clips
fonts-hack: the same text for another reader's eye
fonts-jetbrains-mono: the same again
fonts-liberation: the same again
python3: generates, records and scores
python3-venv: what scoring computes with
tesseract-ocr: reads the text without knowing its font
LIST
        image) cat <<'LIST' ;;
podman: builds the container image
LIST
        *) refuse "unknown set of packages '$1'" "Known: compiler, transcoder, test, e2e, legibility, image." ;;
    esac
}

# The lines of a set whose package is not fully installed.
missing_of() {
    local installed
    installed=$(dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' 2>/dev/null | sed -n 's/^ii //p')
    packages_of "$1" | while IFS= read -r line; do
        grep -qxF "${line%%:*}" <<<"$installed" || printf '%s\n' "$line"
    done
}

policy=/usr/sbin/policy-rc.d
policy_is_ours=no

# Debian asks this file before a package starts its daemon; 101 means "not now".
forbid_daemons() {
    [ -e "$policy" ] && return
    policy_is_ours=yes
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
}

allow_daemons() {
    [ "$policy_is_ours" = no ] || "${as_root[@]}" rm -f "$policy"
}

[ $# -eq 1 ] || refuse "usage: scripts/install-packages.sh compiler|transcoder|test|e2e|legibility|image"
packages_of "$1" >/dev/null
command -v dpkg-query >/dev/null || refuse "this is not a Debian system: packages cannot be installed by this script." \
    "Install the equivalents of these yourself:" "$(packages_of "$1" | sed 's/^/  /')"

missing=$(missing_of "$1")
[ -n "$missing" ] || exit 0
mapfile -t names < <(cut -d: -f1 <<<"$missing")

stage "Debian packages to install for '$1'"
sed 's/^/  /' <<<"$missing"

as_root=(env DEBIAN_FRONTEND=noninteractive)
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || refuse "installing packages needs root, and there is no sudo here." \
        "As root: apt-get update && apt-get install --no-install-recommends ${names[*]}"
    as_root=(sudo "${as_root[@]}")
fi

trap allow_daemons EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
forbid_daemons
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -q --no-install-recommends \
    -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "${names[@]}"

left=$(missing_of "$1" | cut -d: -f1 | tr '\n' ' ')
[ -z "$left" ] || refuse "apt-get ended without an error, yet these are still missing: $left"
