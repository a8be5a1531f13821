#!/usr/bin/env bash
# Installs the Python packages of tests/requirements.txt into .tools/venv, unless that was done already.
#
#   scripts/pip-install.sh "what they are for"
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"

mkdir -p "$here/../.tools"
cd "$here/../.tools"
wanted=$(fingerprint ../tests/requirements.txt)
stamped venv/.codecast-stamp "$wanted" && exit 0

stage "Python packages for tests/: $1"
python3 -m venv --clear venv
venv/bin/pip install --disable-pip-version-check --no-input --quiet --requirement ../tests/requirements.txt
printf '%s\n' "$wanted" >venv/.codecast-stamp
