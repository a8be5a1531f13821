#!/usr/bin/env bash
# Runs a command, shows what it prints, and keeps the end of it with date and machine: docs/results/NAME.md.
#
#   scripts/record.sh NAME "how a person repeats it" COMMAND...
#
# A failed run is recorded as failed, and ends with the command's own status.
set -euo pipefail
name=$1 how=$2
shift 2
# Enough for every summary, short enough to be read in a review.
lines_max=120
results=$(cd "$(dirname "$0")/../docs" && pwd)/results
log=$(mktemp)
trap 'rm -f "$log"' EXIT

status=0
"$@" 2>&1 | tee "$log" || status=$?

mkdir -p "$results"
{
    printf '# %s\n\n' "$name"
    # shellcheck disable=SC2016  # the backquotes are Markdown's
    printf -- '- command: `%s`\n- date: %s\n- machine: %s cores, %s\n' "$how" "$(date -u +%F)" "$(nproc)" "$(uname -sr)"
    printf -- '- toolchain: %s\n- result: %s\n\n' "$(rustc --version)" "$([ $status -eq 0 ] && echo passed || echo "failed, status $status")"
    printf '```text\n'
    # Neither colours nor cargo's progress belong in a document.
    sed -E -e 's/\x1b\[[0-9;]*[A-Za-z]//g' -e '/^ *(Compiling|Downloaded|Downloading|Checking|Fresh|Blocking) /d' "$log" | tail -n "$lines_max"
    printf '```\n'
} >"$results/$name.md"
printf 'Kept in docs/results/%s.md\n' "$name"
exit $status
