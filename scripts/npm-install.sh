#!/usr/bin/env bash
# Installs a folder's npm packages exactly as its lock names them, unless that was done already.
#
#   scripts/npm-install.sh web "what they are for"
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"

folder=$1 purpose=$2
cd "$here/../$folder"
[ -f package-lock.json ] || refuse "$folder/package-lock.json is missing: npm packages are installed only from a lock."

wanted=$(fingerprint package.json package-lock.json)
stamped node_modules/.codecast-stamp "$wanted" && exit 0

stage "npm packages for $folder/: $purpose"
# shellcheck disable=SC2016  # the backquotes are JavaScript's
node -e '
const lock = require("./package-lock.json").packages;
const direct = { ...lock[""].dependencies, ...lock[""].devDependencies };
for (const name of Object.keys(direct)) console.log(`  ${name} ${lock["node_modules/" + name].version}`);
console.log("  and what these need");
'
npm ci --no-audit --no-fund
printf '%s\n' "$wanted" >node_modules/.codecast-stamp
