#!/bin/sh
# The main job, on a shipped machine: what `make demo` shows. Run in a folder with a compose file; GPUALLOC is the command.
set -eu
machine=sim:4xl40s
policy=airflow

run() {
    printf '\n$ gpualloc %s\n' "$*"
    "$GPUALLOC" "$@"
}

run plan --inventory "$machine" --policy "$policy"
run plan --inventory "$machine" --policy "$policy" --diff
run apply --inventory "$machine" --policy "$policy" --yes
run check --inventory "$machine" --policy "$policy"
run reset --yes >/dev/null
