#!/bin/sh
# A real Docker Engine with Compose, without a GPU and without an image registry, as root on Debian 12 or 13.
#
#   engine.sh start DIR    start one, and print the variables under which `docker` reaches it
#   engine.sh stop DIR     end it, with every container in it, and remove all of DIR but the packages
#
#   eval "$(tests/engine/engine.sh start /tmp/engine)"
#   docker compose version
#   tests/engine/engine.sh stop /tmp/engine
#
# Nothing is installed: Debian's own packages are unpacked under DIR, and the engine runs in network, mount and process
# namespaces of its own, so that it meets neither this machine's networks and firewall nor another engine on it.
#
# The engine believes that it has NVIDIA GPUs:
#   - the driver "nvidia" is there as soon as a program of the hook's name is; this one does nothing, and a container's
#     NVIDIA_VISIBLE_DEVICES shows what it was given;
#   - the runtime "nvidia" is runc under another name;
#   - CDI specs are read from DIR/cdi.
#
# PACKAGES=DIR   where the packages are kept (about 75 MB to fetch, once); DIR/packages if absent
# HOOK=FILE      the hook to use instead of the one that does nothing
# RUNTIME=FILE   the runtime to call "nvidia" instead of runc
# COMPOSE=FILE   the Compose to use instead of Debian's: 2.26 knows neither `gpus` nor CDI names under `devices`
set -eu
. "$(dirname "$0")/packages.sh"

fail() { echo "engine.sh: $*" >&2; exit 1; }

configure() {
    dir=$1
    mkdir -p "$dir/cdi" "$dir/config/cli-plugins"
    ln -sf "${COMPOSE:-$2/usr/libexec/docker/cli-plugins/docker-compose}" "$dir/config/cli-plugins/docker-compose"
    cat >"$dir/daemon.json" <<JSON
{
  "hosts": ["unix://$dir/docker.sock"],
  "data-root": "$dir/data",
  "exec-root": "$dir/exec",
  "pidfile": "$dir/dockerd.pid",
  "features": {"cdi": true},
  "cdi-spec-dirs": ["$dir/cdi"],
  "runtimes": {"nvidia": {"path": "${RUNTIME:-$dir/bin/runc}"}},
  "bridge": "none",
  "iptables": false,
  "ip6tables": false
}
JSON
}

# With --kill-child, whatever runs in the namespaces ends with the process that this starts.
daemon() {
    dir=$1
    PATH=$dir/bin:$PATH setsid unshare --net --mount --pid --fork --kill-child --mount-proc -- sh -c '
        busybox ip link set lo up
        exec dockerd --config-file "$1"' sh "$dir/daemon.json" >"$dir/log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
}

wait_for() {
    tries=0
    until docker version >/dev/null 2>&1; do
        kill -0 "$(cat "$1/pid")" 2>/dev/null || { tail -n 5 "$1/log" >&2; fail "the engine has ended; see $1/log"; }
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { tail -n 5 "$1/log" >&2; fail "the engine does not answer; see $1/log"; }
        sleep 0.2
    done
}

start() {
    dir=$1 packages=${PACKAGES:-$1/packages}
    [ "$(id -u)" = 0 ] || fail "an engine needs root"
    [ "${#dir}" -le 60 ] || fail "$dir is too long: sockets in it would have paths that the kernel refuses"
    unshare --net --mount --pid --fork true || fail "an engine needs network, mount and process namespaces"
    [ ! -e "$dir/pid" ] || fail "there is one in $dir already"
    mkdir -p "$packages"
    packages=$(cd "$packages" && pwd)
    # one at a time, where several are started at once
    (flock 9 && { [ -e "$packages/complete" ] || fetch "$packages" >&2; }) 9>"$packages/lock"
    programs "$packages/root" "$dir/bin"
    configure "$dir" "$packages/root"
    daemon "$dir"
    export DOCKER_HOST="unix://$dir/docker.sock" DOCKER_CONFIG="$dir/config" PATH="$dir/bin:$PATH"
    wait_for "$dir"
    echo "export DOCKER_HOST='$DOCKER_HOST' DOCKER_CONFIG='$DOCKER_CONFIG' PATH='$dir/bin':\"\$PATH\""
}

clear_away() {
    rm -rf "$1/bin" "$1/cdi" "$1/config" "$1/data" "$1/exec" "$1/daemon.json" "$1/docker.sock" "$1/dockerd.pid" \
        "$1/log" "$1/pid"
}

stop() {
    dir=$1
    [ -e "$dir/pid" ] || fail "there is none in $dir"
    export DOCKER_HOST="unix://$dir/docker.sock" PATH="$dir/bin:$PATH"
    # one by one, so that their control groups go too; then the namespaces, with whatever is left in them
    docker ps --all --quiet | xargs --no-run-if-empty docker rm --force >/dev/null 2>&1 || true
    pid=$(cat "$dir/pid")
    kill -KILL "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    clear_away "$dir" 2>/dev/null || { sleep 1; clear_away "$dir"; } # what was killed may have been writing
}

[ $# = 2 ] || fail "usage: engine.sh start|stop DIR"
mkdir -p "$2"
case $1 in
    start) start "$(cd "$2" && pwd)" ;;
    stop) stop "$(cd "$2" && pwd)" ;;
    *) fail "usage: engine.sh start|stop DIR" ;;
esac
