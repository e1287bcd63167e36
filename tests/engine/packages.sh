# Where an engine's programs come from; read by engine.sh and swarm.sh. `fail` is the reader's.

# Debian's mirror, as this machine has it configured.
mirror() {
    sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1 | grep . ||
        awk '$1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ /^(http|file|mirror)/) {print $i; exit}}' \
            /etc/apt/sources.list 2>/dev/null | grep . ||
        fail "no Debian mirror in /etc/apt/sources.list or sources.list.d/debian.sources"
}

# Debian 12 has no Compose 2 and no engine that knows CDI, so both come from Debian 13; they run on 12 as they are.
# All but runc, which is linked against the C library of its own release.
fetch() {
    packages=$1
    . /etc/os-release
    case "${VERSION_CODENAME:-}" in bookworm | trixie) ;; *) fail "this is not Debian 12 or 13" ;; esac
    uri=$(mirror)
    mkdir -p "$packages/apt/lists/partial" "$packages/apt/cache/archives/partial" "$packages/deb" "$packages/root"
    for suite in trixie "$VERSION_CODENAME"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main"
    done | sort -u >"$packages/apt/sources.list"
    set -- -qq -o "Dir::Etc::SourceList=$packages/apt/sources.list" -o Dir::Etc::SourceParts=- \
        -o "Dir::State::Lists=$packages/apt/lists" -o "Dir::Cache=$packages/apt/cache" -o APT::Sandbox::User=root
    apt-get "$@" update
    (cd "$packages/deb" && apt-get "$@" download docker.io/trixie docker-cli/trixie docker-compose/trixie \
        containerd/trixie tini/trixie busybox-static/trixie "runc/$VERSION_CODENAME")
    for deb in "$packages"/deb/*.deb; do dpkg --extract "$deb" "$packages/root"; done
    rm -r "$packages/apt" "$packages/deb"
    touch "$packages/complete"
}

# The programs by their names, wherever their packages keep them.
programs() {
    root=$1 bin=$2
    mkdir -p "$bin"
    for program in usr/sbin/dockerd usr/bin/docker usr/sbin/docker-proxy usr/bin/containerd \
        usr/bin/containerd-shim-runc-v2 usr/sbin/runc usr/bin/busybox bin/busybox; do
        [ ! -x "$root/$program" ] || ln -sf "$root/$program" "$bin/"
    done
    ln -sf "$root/usr/bin/tini-static" "$bin/docker-init"
    hook=$bin/nvidia-container-runtime-hook
    if [ -n "${HOOK:-}" ]; then
        ln -sf "$HOOK" "$hook"
    else
        printf '#!/bin/sh\nexit 0\n' >"$hook" && chmod +x "$hook"
    fi
    "$bin/dockerd" --version >/dev/null || fail "dockerd does not run here"
}
