#!/bin/sh
# Shows cachefs at work: a slow command, its result from the cache, and the cache. Installs cachefs into
# .venv first, if it is not there. Everything else happens in the directory "demo", which is made anew.
set -eu
cd "$(dirname "$0")/.."
if ! [ -x .venv/bin/cachefs ]; then
    python3 -m venv .venv
    .venv/bin/pip install --quiet --editable .
fi
PATH=$PWD/.venv/bin:$PATH

rm -rf demo
mkdir demo
cd demo
echo "it was a dark and stormy night" >story.txt
cat >shout.sh <<'END'
sleep 2
tr a-z A-Z <story.txt >SHOUT.txt
echo "shouted, slowly"
END

step() {
    printf '\n$ %s\n' "$*"
    "$@"
}
shout() {
    step cachefs run --cache ./cache --input story.txt --input shout.sh --output SHOUT.txt --explain -- sh shout.sh
}

shout # runs
step rm SHOUT.txt
shout # is a hit: restored, and what it printed is replayed
step cat SHOUT.txt
echo "it was a bright and sunny morning" >story.txt
printf '\n$ echo "it was a bright and sunny morning" > story.txt\n'
shout # runs again: an input has changed
step cachefs ls ./cache
