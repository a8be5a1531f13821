#!/usr/bin/env bash
# Installs and builds what the tests need beyond the crates. Quick when it is all there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"

"$here/check-toolchain.sh"
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || refuse "'cargo $component' is missing." "rustup component add rustfmt clippy"
done
"$here/install-packages.sh" test
"$here/npm-install.sh" tests "a driver for Chromium, and the players the tests play with"
"$here/pip-install.sh" tests/requirements.txt venv "a newer ffmpeg than Debian's, which publishes by WHIP"
"$here/build-web.sh"
