#!/usr/bin/env bash
# `make image`: builds the container image with the first builder that works here, and says which one that was.
#
# Environment: IMAGE=codecast:latest, BUILDER=docker|podman|buildah, BUILD_FLAGS='--build-arg RUNTIME_IMAGE=...'
# (other base images, or a builder's own flags, e.g. --isolation chroot inside a container).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stage.sh"
cd "$here/.."

# A program that is installed may still have no daemon or no rights: ask it something that needs both.
usable() { command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1; }

builder=${BUILDER:-}
for candidate in docker podman buildah; do
    [ -n "$builder" ] || ! usable "$candidate" || builder=$candidate
done
[ -n "$builder" ] || refuse "neither docker, podman nor buildah works here." \
    "Install one of them, e.g. scripts/install-packages.sh image"

image=${IMAGE:-codecast:latest}
read -ra flags <<<"${BUILD_FLAGS:-}"
stage "Image $image, built by $builder from docker/Dockerfile"
"$builder" build "${flags[@]}" --tag "$image" --file docker/Dockerfile .
printf '\nStart it: %s run --rm --publish 1935:1935 --publish 8080:8080 --publish 8189:8189/udp --publish 8890:8890/udp --volume codecast-data:/var/lib/codecast %s\n' "$builder" "$image"
