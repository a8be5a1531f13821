# shellcheck shell=bash
# Shared by the scripts beside it: how they speak, and how they notice that work is already done. Sourced, not run.

# A line that stands out in a long log.
stage() { printf '\n==> %s\n' "$*"; }

# Stops with a reason and, where there is one, the way out.
refuse() {
    printf 'codecast: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

# One number for the contents of the given files and folders, without what builds leave behind.
fingerprint() {
    find "$@" -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -print0 |
        sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

# Whether STAMP holds FINGERPRINT: what it stands for was finished with exactly these inputs.
stamped() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
