#!/bin/sh
# A real Docker Swarm on one machine, without a GPU and without an image registry, as root on Debian 12 or 13.
#
#   swarm.sh start DIR NODE[=GPU,…]…    start an engine for each node, and join them: the first is the manager
#   swarm.sh stop-node DIR NODE         end a node at once, as if its power had gone
#   swarm.sh start-node DIR NODE        start it again, with what it had on its disk
#   swarm.sh stop DIR                   end everything, with every container in it, and remove DIR, but for the packages
#
#   tests/engine/swarm.sh start /tmp/swarm gpu01=GPU-aaaaaaaa,GPU-bbbbbbbb gpu02=GPU-cccccccc gpu03
#   DOCKER_HOST=unix:///tmp/swarm/gpu01/docker.sock /tmp/swarm/bin/docker node ls
#   tests/engine/swarm.sh stop /tmp/swarm
#
# Every node has network, mount, process and host name namespaces of its own, and its files in DIR/NODE. A bridge in a
# further network namespace joins them; it leads nowhere else. What is named after a node are the ids of its GPUs: they
# are its generic resources of the kind NVIDIA-GPU, and their number is its label `gpus`. The engine's default runtime is
# one called "nvidia", as on nodes that run GPU work in a Swarm: runc, unless DIR/NODE/runtime is there. The hook is one
# that does nothing, unless DIR/NODE/hook is there.
#
# Overlay networks are there, so the kernel must have VXLAN. Where it has no IPVS, nothing answers at a service's virtual
# address or its published ports; its tasks run, and are reached by the names `tasks.SERVICE`.
#
# PACKAGES=DIR   where the packages are kept; DIR/packages if absent
# OWNER=PID      the process for which this is done: when it has ended, however it ended, so does the Swarm
set -eu
. "$(dirname "$0")/packages.sh"

fail() { echo "swarm.sh: $*" >&2; exit 1; }

# Addresses from the block for tests between networks (RFC 2544); Docker hands out none of it by itself.
NETWORK=198.18.0

# ---------------------------------------------------------------------------------------------------------------------
# Nodes

configure() {
    node=$1 ids=$2
    mkdir -p "$node/cdi"
    resources=
    for id in $(echo "$ids" | tr , ' '); do resources="$resources${resources:+, }\"NVIDIA-GPU=$id\""; done
    runtime=$node/bin/runc
    [ ! -x "$node/runtime" ] || runtime=$node/runtime
    cat >"$node/daemon.json" <<JSON
{
  "hosts": ["unix://$node/docker.sock"],
  "data-root": "$node/data",
  "exec-root": "$node/exec",
  "pidfile": "$node/dockerd.pid",
  "features": {"cdi": true},
  "cdi-spec-dirs": ["$node/cdi"],
  "runtimes": {"nvidia": {"path": "$runtime"}},
  "default-runtime": "nvidia",
  "node-generic-resources": [$resources],
  "cgroup-parent": "$(cgroup "$node")",
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "bridge": "none",
  "iptables": false,
  "ip6tables": false
}
JSON
}

# The control group that holds those of a node's containers: so they can be found and removed whatever happened.
cgroup() { echo "/$(basename "$(dirname "$1")")/$(basename "$1")"; }

# The bridge lives as long as the process that this starts.
switch() {
    dir=$1
    PATH=$dir/bin:$PATH setsid unshare --net -- sh -ec '
        # without its id a VXLAN is refused, with other words where there is no such thing
        if busybox ip link add vxlan0 type vxlan 2>&1 | grep "not supported"; then exit 1; fi
        busybox ip link set lo up
        busybox ip link add switch type bridge
        busybox ip link set switch up
        : >"$1/up"
        exec sleep infinity' sh "$dir" >"$dir/log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    wait_until "$dir" "the kernel lacks bridges, or VXLAN" [ -e "$dir/up" ]
}

# A node's network namespace, plugged into the switch; in it the rest. With --kill-child, whatever runs in the node ends
# with the process that this starts. What an engine keeps in /run must neither be another's nor outlive it.
power_on() {
    node=$1 switch=$(cat "$1/../pid")
    rm -rf "$node/exec" "$node/dockerd.pid" "$node/docker.sock"
    PATH=$node/bin:$PATH setsid flock --no-fork "$node/lock" unshare --net -- sh -ec '
        node=$1 switch=$2 address=$3 name=$(basename "$1")
        busybox ip link set lo up
        busybox ip link add eth0 type veth
        busybox ip link set veth0 name "$name"
        nsenter --target "$switch" --net busybox ip link del "$name" 2>/dev/null || true # of the node as it ran before
        busybox ip link set "$name" netns "$switch"
        nsenter --target "$switch" --net busybox brctl addif switch "$name"
        nsenter --target "$switch" --net busybox ip link set "$name" up
        busybox ip addr add "$address/24" dev eth0
        busybox ip link set eth0 up
        exec unshare --mount --uts --pid --fork --kill-child --mount-proc -- sh -ec "
            busybox hostname $name
            busybox mount -t tmpfs tmpfs /run
            exec dockerd --config-file $node/daemon.json"
        ' sh "$node" "$switch" "$(cat "$node/address")" >>"$node/log" 2>&1 </dev/null &
    echo $! >"$node/pid"
}

# Whatever runs in a node has inherited its lock: it is free when all of it has ended.
power_off() {
    for node in "$@"; do [ ! -e "$node/pid" ] || kill -KILL "$(cat "$node/pid")" 2>/dev/null || true; done
    for node in "$@"; do
        [ ! -e "$node/lock" ] || flock "$node/lock" true
        rm -f "$node/pid"
    done
}

docker_on() {
    node=$1
    shift
    DOCKER_HOST="unix://$node/docker.sock" "$node/bin/docker" "$@"
}

wait_until() {
    node=$1 message="$2; see $1/log"
    shift 2
    tries=0
    until "$@" >/dev/null 2>&1; do
        kill -0 "$(cat "$node/pid")" 2>/dev/null && [ $tries -lt 300 ] || {
            tail -n 5 "$node/log" >&2
            fail "$message"
        }
        tries=$((tries + 1))
        sleep 0.2
    done
}

is_in_swarm() { [ "$(docker_on "$1" info --format '{{.Swarm.LocalNodeState}}')" = active ]; }

# ---------------------------------------------------------------------------------------------------------------------
# Swarm

start() {
    dir=$1 packages=${PACKAGES:-$1/packages}
    shift
    [ "$(id -u)" = 0 ] || fail "an engine needs root"
    [ "${#dir}" -le 50 ] || fail "$dir is too long: sockets in it would have paths that the kernel refuses"
    unshare --net --mount --uts --pid --fork true || fail "a node needs network, mount, host name and process namespaces"
    [ ! -e "$dir/pid" ] || fail "there is one in $dir already"
    mkdir -p "$packages"
    packages=$(cd "$packages" && pwd)
    # one at a time, where several are started at once
    (flock 9 && { [ -e "$packages/complete" ] || fetch "$packages" >&2; }) 9>"$packages/lock"
    programs "$packages/root" "$dir/bin"
    switch "$dir"
    [ -z "${OWNER:-}" ] || watch "$OWNER" "$dir"
    : >"$dir/nodes"
    for word in "$@"; do
        name=${word%%=*} ids=
        [ "$name" = "$word" ] || ids=${word#*=}
        [ "${#name}" -le 10 ] || fail "$name is too long for the name of a network interface"
        echo "$name" >>"$dir/nodes"
        mkdir -p "$dir/$name"
        echo "$NETWORK.$(($(wc -l <"$dir/nodes")))" >"$dir/$name/address"
        hook=
        [ ! -x "$dir/$name/hook" ] || hook=$dir/$name/hook
        HOOK=$hook programs "$packages/root" "$dir/$name/bin"
        configure "$dir/$name" "$ids"
        power_on "$dir/$name"
    done
    for name in $(cat "$dir/nodes"); do wait_until "$dir/$name" "an engine does not answer" docker_on "$dir/$name" version; done
    join "$dir"
    for word in "$@"; do
        case $word in *=*)
            docker_on "$manager" node update --label-add "gpus=$(echo "${word#*=}" | tr , '\n' | wc -l)" "${word%%=*}" >/dev/null
            ;;
        esac
    done
}

# A node that does not answer is taken for lost after three heartbeats: within seconds here.
join() {
    manager=$1/$(head -n 1 "$1/nodes")
    docker_on "$manager" swarm init --advertise-addr "$(cat "$manager/address")" --dispatcher-heartbeat 1s >/dev/null
    token=$(docker_on "$manager" swarm join-token --quiet worker)
    for name in $(tail -n +2 "$1/nodes"); do
        docker_on "$1/$name" swarm join --token "$token" --advertise-addr "$(cat "$1/$name/address")" \
            "$(cat "$manager/address"):2377" >/dev/null
    done
}

# Runs beside the Swarm, in a session of its own, and ends it when the owner has ended.
watch() {
    setsid sh -c '
        while kill -0 "$1" 2>/dev/null && [ -e "$2/pid" ]; do sleep 1; done
        [ ! -e "$2/pid" ] || exec "$3" stop "$2"' sh "$1" "$2" "$(cd "$(dirname "$0")" && pwd)/swarm.sh" \
        >/dev/null 2>&1 </dev/null &
}

clear_away() {
    for name in $(cat "$1/nodes"); do rm -rf "${1:?}/$name"; done
    rm -rf "$1/bin" "$1/log" "$1/up" "$1/config" "$1/nodes" "$1/lock" "$1/pid"
    rmdir "$1" 2>/dev/null || true
}

# Whatever a container was in when its node ended, its control groups are empty now, or as soon as its last process is gone.
clear_control_groups() {
    for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
        tries=100
        while [ -d "$root/$1" ] && [ "$tries" -gt 0 ]; do
            find "$root/$1" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
            tries=$((tries - 1))
        done
    done
}

stop() {
    dir=$1
    [ -e "$dir/pid" ] || fail "there is none in $dir"
    touch "$dir/nodes"
    power_off $(sed "s|.*|$dir/&|" "$dir/nodes") "$dir"
    clear_control_groups "$(basename "$dir")"
    clear_away "$dir"
}

usage() { fail "usage: swarm.sh start DIR NODE[=GPU,…]… | stop-node|start-node DIR NODE | stop DIR"; }

[ $# -ge 2 ] || usage
mkdir -p "$2"
verb=$1 dir=$(cd "$2" && pwd)
shift 2
case $verb,$# in
    start,0) usage ;;
    start,*) start "$dir" "$@" ;;
    stop-node,1) power_off "$dir/$1" ;;
    start-node,1)
        power_on "$dir/$1"
        wait_until "$dir/$1" "the engine does not come back into the Swarm" is_in_swarm "$dir/$1"
        ;;
    stop,0) stop "$dir" ;;
    *) usage ;;
esac
