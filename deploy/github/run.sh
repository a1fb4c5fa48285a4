#!/bin/sh
# The one step of action.yml: installs cachefs from the revision of the action, once in a job, and runs
# cache.sh. The environment is described there.
set -eu

project=$GITHUB_ACTION_PATH/../..
installed=$RUNNER_TEMP/cachefs
keys=$RUNNER_TEMP/cachefs-keys

if [ ! -e "$installed/done" ]; then
    python3 -m venv "$installed"
    # An installation runs code of others: it sees no key.
    env -u SIGNING_KEY "$installed/bin/pip" install --quiet "${project}[${EXTRAS}]"
    touch "$installed/done"
fi
mkdir -p "$installed/path"
ln -sf "$installed/bin/cachefs" "$installed/path/cachefs"
echo "$installed/path" >>"$GITHUB_PATH"
PATH=$installed/path:$PATH
export PATH

if [ -z "$CACHEFS_TRUSTED_KEYS" ]; then
    unset CACHEFS_TRUSTED_KEYS
fi
if [ -n "$SIGNING_KEY" ]; then
    (
        umask 077
        mkdir -p "$keys"
        printf '%s\n' "$SIGNING_KEY" >"$keys/signing-key"
    )
    trap 'rm -rf "$keys"' EXIT
    CACHEFS_SIGNING_KEY=$keys/signing-key
    export CACHEFS_SIGNING_KEY
fi
unset SIGNING_KEY

case $MODE in
install) ;;
save) "$project/deploy/cache.sh" save ;;
restore)
    lines=$("$project/deploy/cache.sh" restore)
    {
        echo "cache-from<<END-OF-CACHE-FROM"
        echo "$lines" | sed -n 's/^cache-from //p'
        echo "END-OF-CACHE-FROM"
        echo "$lines" | sed -n 's/^cache-to /cache-to=/p'
    } >>"$GITHUB_OUTPUT"
    ;;
*)
    echo "mode is restore, save or install, not $MODE" >&2
    exit 2
    ;;
esac
