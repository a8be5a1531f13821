#!/usr/bin/env bash
# Installs the Python packages of a file, named from the project's root, into a folder of .tools, unless that was done already.
#
#   scripts/pip-install.sh tests/requirements.txt venv "what they are for"
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"

list=../$1 venv=$2
mkdir -p "$here/../.tools"
cd "$here/../.tools"
wanted=$(fingerprint "$list")
stamped "$venv/.codecast-stamp" "$wanted" && exit 0

stage "Python packages: $3"
python3 -m venv --clear "$venv"
"$venv/bin/pip" install --disable-pip-version-check --no-input --quiet --requirement "$list"
printf '%s\n' "$wanted" >"$venv/.codecast-stamp"
