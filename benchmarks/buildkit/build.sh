#!/bin/sh
# build.sh CHECKOUT OUTPUT: compile main.go with the packages of a checkout of BuildKit.
#
# The program uses packages that BuildKit vendors, so it must lie in BuildKit's module. An overlay
# tells the compiler that it does; the checkout stays as it is. GO names the go command, if it is not
# the one in PATH.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: build.sh CHECKOUT OUTPUT" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$1" && pwd)
output=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
if ! grep -qx 'module github.com/moby/buildkit' "$checkout/go.mod"; then
    echo "build.sh: $checkout is no checkout of github.com/moby/buildkit" >&2
    exit 1
fi
version=$(git -C "$checkout" describe --tags --match 'v[0-9]*' 2>/dev/null || echo unknown)
overlay=$(mktemp)
trap 'rm -f "$overlay"' EXIT
printf '{"Replace": {"%s": "%s"}}\n' "$checkout/cmd/buildkit-peer/main.go" "$here/main.go" >"$overlay"
cd "$checkout"
CGO_ENABLED=0 "${GO:-go}" build -mod=vendor -trimpath -overlay "$overlay" \
    -ldflags "-s -w -X main.buildkit=$version" -o "$output" ./cmd/buildkit-peer
