#!/bin/sh
# Restores a BuildKit cache from a cache location into a directory before a build, or saves it there
# afterwards. The GitHub action and the GitLab template in this directory run it; any other CI can.
#
#   cache.sh restore    copies the names that exist into $CACHEFS_DIRECTORY, and prints the options for the
#                       builder, one a line: "cache-from type=local,..." and "cache-to type=local,..."
#   cache.sh save       copies what the builder wrote to $CACHEFS_DIRECTORY-new to the location
#
# CACHEFS_CACHE      the location, such as s3://builds/app/
# CACHEFS_NAMES      names, separated by spaces: first that of this build, which "save" writes, then those
#                    that it may read as well
# CACHEFS_DIRECTORY  the directory for the builder, by default buildkit-cache
# CACHEFS_MERGE      true: "save" joins the name with what the location holds under it, as the jobs of a
#                    matrix need
#
# cachefs itself reads CACHEFS_TRUSTED_KEYS, with which only signed names are restored, and CACHEFS_SIGNING_KEY,
# with which what is saved is signed.
set -euf

: "${CACHEFS_CACHE:?give the location of the cache, such as s3://builds/app/}"
: "${CACHEFS_NAMES:?give the names, separated by spaces}"
directory=${CACHEFS_DIRECTORY:-buildkit-cache}
own=${CACHEFS_NAMES%% *}

case "$CACHEFS_NAMES$directory" in
*[,\"]*)
    echo "cache.sh: builders take no name and no directory with a comma or a quote: $CACHEFS_NAMES, $directory" >&2
    exit 2
    ;;
esac

restore() {
    for name in $CACHEFS_NAMES; do
        # Status 1: this name is damaged or not signed by a trusted key. The build does without it.
        cachefs copy "$CACHEFS_CACHE" "type=local,dest=$directory" --name "$name" --ignore-missing >&2 ||
            [ $? -eq 1 ]
        if trusting cachefs ls "type=local,src=$directory" --name "$name" >/dev/null 2>&1; then
            echo "cache-from type=local,src=$directory,tag=$name"
        fi
    done
    echo "cache-to type=local,dest=$directory-new,tag=$own,mode=max"
}

save() {
    if [ "${CACHEFS_MERGE:-false}" = true ]; then
        set -- --merge
    else
        set --
    fi
    trusting cachefs copy "type=local,src=$directory-new" "$CACHEFS_CACHE" --name "$own" "$@"
}

# What lies in a directory of this machine needs no signature: "restore" has checked it, or the builder made it.
trusting() {
    env -u CACHEFS_TRUSTED_KEYS "$@"
}

case ${1-} in
restore) restore ;;
save) save ;;
*)
    echo "usage: cache.sh restore|save" >&2
    exit 2
    ;;
esac
