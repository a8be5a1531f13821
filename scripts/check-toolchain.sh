#!/usr/bin/env bash
# Looks for the few things this project cannot install for you: Rust, Node and npm.
# What is missing is named together with the place to get it. A C compiler comes from Debian when there is none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"

# Vite, which builds the watch page, asks for at least this Node.
node_major_min=20

command -v cargo >/dev/null || refuse "Rust is missing: 'cargo' is not on the PATH." \
    "Install it from https://rustup.rs, then open a new shell. The version needed stands in Cargo.toml (rust-version)."
for program in node npm; do
    command -v "$program" >/dev/null || refuse "Node is missing: '$program' is not on the PATH." \
        "Install Node $node_major_min or newer from https://nodejs.org, or with your version manager."
done

node_major=$(node -p 'process.versions.node.split(".")[0]')
[ "$node_major" -ge "$node_major_min" ] || refuse "Node $node_major is too old: the watch page is built with Node $node_major_min or newer."

command -v cc >/dev/null || "$here/install-packages.sh" compiler
