#!/usr/bin/env bash
# `make fuzz`: runs fuzz targets, one after the other. scripts/fuzz.sh [TARGET...] [SECONDS]; without names, all of them,
# and a minute each. What is found lies in fuzz/target/found/TARGET/ and is reported by libFuzzer.
#
# It uses the nightly toolchain with the address sanitizer where there is one, else the pinned one without. cargo-fuzz
# is not needed: the flags below are those it sets.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/.."

all=(stun sdp rtcp depacketize depacketize_hevc depacketize_av1 receiver bandwidth session wire flv_tag rtmp_session
    srt transport_stream chunk amf0 codec_headers directives)
seconds=60
targets=()
for word in "$@"; do
    case $word in
    *[!0-9]*) targets+=("$word") ;;
    *) seconds=$word ;;
    esac
done
[ ${#targets[@]} -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    [ -f "fuzz/fuzz_targets/$target.rs" ] || refuse "there is no fuzz target '$target'." "There are: ${all[*]}"
done

export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/fuzz/target}
host=$(rustc -vV | sed -n 's/^host: //p')
toolchain=()
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# One codegen unit: sections of the coverage tables must not be split (cargo-fuzz does the same).
flags+=" --cfg fuzzing -Ccodegen-units=1"
if rustup run nightly rustc -V >/dev/null 2>&1; then
    toolchain=(rustup run nightly)
    flags+=" -Zsanitizer=address"
fi

stage "Building ${targets[*]}"
# With --target the flags are for the targets alone, not for build scripts.
RUSTFLAGS=$flags "${toolchain[@]}" cargo build --manifest-path fuzz/Cargo.toml --locked --release --target "$host" \
    "${targets[@]/#/--bin=}"

for target in "${targets[@]}"; do
    stage "$target, $seconds s"
    found=$CARGO_TARGET_DIR/found/$target grown=$CARGO_TARGET_DIR/corpus/$target
    mkdir -p "$found" "$grown"
    # New inputs go to the first folder; the committed ones are only read. A hang counts after ten seconds.
    "$CARGO_TARGET_DIR/$host/release/$target" -artifact_prefix="$found/" -max_total_time="$seconds" -max_len=4096 \
        -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 "$grown" "fuzz/corpus/$target"
done
