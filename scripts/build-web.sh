#!/usr/bin/env bash
# Builds the watch page into web/dist, from where the server embeds it. Does nothing when its sources have not changed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"

"$here/npm-install.sh" web "the watch page (player, build, its tests)"
cd "$here/../web"

# The stamp lies outside dist, which the build empties, and is asked for together with the page itself.
wanted=$(fingerprint .)
[ -f dist/index.html ] && stamped node_modules/.codecast-built "$wanted" && exit 0

stage "Watch page: web/dist"
npm run build
printf '%s\n' "$wanted" >node_modules/.codecast-built
