#!/usr/bin/env bash
# Builds the Dockerfile for real and runs what it made, without a Docker engine: Debian's buildah with chroot isolation
# on a base image that debootstrap makes. Needs root, bubblewrap, some 10 GB of disk and a quarter of an hour; leaves nothing behind.
#
#   tools/image_check.sh              build and check
#   SUITE=trixie tools/image_check.sh  on another Debian release
#   KEEP=/var/tmp/image tools/image_check.sh   keep the storage there, and build on the base image found in it
set -euo pipefail
cd "$(dirname "$0")/.."

SUITE=${SUITE:-bookworm}
IMAGE=modelpress:check
BASE=modelpress-base:$SUITE

main() {
    require buildah debootstrap bwrap unshare ip
    work=${KEEP:-$(mktemp -d /var/tmp/modelpress-image.XXXXXX)}
    trap finish EXIT
    mkdir -p "$work"
    mapfile -t pip_mounts < <(python3 tools/pip_mounts.py "$work/pip.conf")
    has_image "$BASE" || make_base
    step "build the Dockerfile"
    buildah_ build --isolation chroot --format docker --layers=false "${pip_mounts[@]}" \
        --build-arg "BASE=localhost/$BASE" --build-arg PIP_EXTRA_INDEX_URL= --tag "$IMAGE" .
    check
}

make_base() {
    step "make a base image of Debian $SUITE"
    local container folder
    container=$(buildah_ from scratch)
    folder=$(buildah_ mount "$container")
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$SUITE" "$folder" >"$work/debootstrap.log" \
        || { tail -20 "$work/debootstrap.log"; exit 1; }
    buildah_ umount "$container" >/dev/null
    buildah_ commit --quiet --rm "$container" "$BASE" >/dev/null
}

check() {
    container=$(buildah_ from "$IMAGE")
    step "runs as a user of its own"
    test "$(inside id -u)" = 10001
    step "lists its commands"
    inside python -m api --help
    step "carries no compiler, no test and no cache of pip"
    inside sh -c '! command -v gcc && ! test -e /root/.cache/pip && ! python -c "import pytest" 2>/dev/null'
    step "answers its own health check, without any network but loopback"
    inside sh -c "$(served_and_pinged)"
    root=$(buildah_ mount "$container")
    install --directory --owner=10001 --group=10001 "$work/data" "$work/machine"
    step "runs the demo as the compose file runs it: upload, three jobs in workers, comparison"
    contained python -m api demo --report /tmp/comparison.html
    step "isolation of jobs, by what the container is allowed"
    isolation
}

# The service comes up, the HEALTHCHECK of the image says so, and fails again when the service has ended.
served_and_pinged() {
    local health
    health=$(buildah_ inspect --type image --format '{{range .Docker.Config.Healthcheck.Test}}{{.}} {{end}}' "$IMAGE")
    health=${health#CMD }
    cat <<SHELL
set -e
python -m api serve --host 127.0.0.1 --port 8000 --data /data/check & service=\$!
for attempt in \$(seq 60); do $health 2>/dev/null && break; sleep 1; done
$health && echo "healthy: $health"
python -c 'import urllib.request as r; print(r.urlopen("http://127.0.0.1:8000/readyz").read().decode())'
kill \$service; wait \$service || true
! $health 2>/dev/null && echo "unhealthy once stopped"
SHELL
}

isolation() {
    local ask='from pathlib import Path; from worker import isolation, landlock
view = isolation.make_view(Path("/data/view"), ["worker", "compression"])
print(isolation.best(view).value, f"(Landlock {landlock.version()})")'
    local full
    full=$(contained python -c "$ask")
    echo "as in the compose file:       $full"
    echo "with parts of /proc masked:   $(masked=yes contained python -c "$ask")"
    echo "with the default call filter: $(inside python -c "$ask")"
    [[ $full == bubblewrap* ]] || { echo "this machine lets nobody make namespaces" >&2; exit 1; }
}

# As the compose file runs a worker: a read-only root, no capabilities, no new privileges, whole /proc, no call filter.
# bwrap covers parts of /proc, as Docker does; a fresh one on top is what `systempaths=unconfined` comes to.
contained() {
    local variables=() line whole='mount -t proc proc /proc'
    while read -r line; do variables+=(--setenv "${line%%=*}" "${line#*=}"); done < <(
        buildah_ inspect --type image --format '{{range .Docker.Config.Env}}{{println .}}{{end}}' "$IMAGE" | grep =)
    test -z "${masked:-}" || whole=true
    bwrap --clearenv "${variables[@]}" --unshare-pid --unshare-net --unshare-ipc --unshare-uts --die-with-parent \
        --ro-bind "$root" / --dev /dev --proc /proc --ro-bind /sys /sys --perms 1777 --tmpfs /tmp \
        --perms 1777 --tmpfs /dev/shm --setenv TMPDIR /machine --bind "$work/data" /data --bind "$work/machine" /machine --chdir /data \
        sh -c "$whole"' && exec setpriv --reuid=10001 --regid=10001 --clear-groups --bounding-set=-all \
            --inh-caps=-all --no-new-privs "$@"' sh "$@"
}

# In a network namespace that has nothing but loopback, without capabilities.
inside() {
    unshare --net sh -c 'ip link set lo up && exec "$@"' sh \
        buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs \
        run --isolation chroot --cap-drop ALL "$container" -- "$@"
}

buildah_() {
    buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

has_image() {
    buildah_ inspect --type image "$1" >/dev/null 2>&1
}

require() {
    test "$(id -u)" = 0 || { echo "image-check: needs root" >&2; exit 2; }
    for program in "$@"; do
        command -v "$program" >/dev/null || { echo "image-check: $program is not installed" >&2; exit 2; }
    done
}

step() {
    printf '\n== %s\n' "$*"
}

finish() {
    local status=$?
    buildah_ umount --all >/dev/null 2>&1 || true
    buildah_ rm --all >/dev/null 2>&1 || true
    test -n "${KEEP:-}" || rm -rf "$work"
    test "$status" = 0 && echo "image-check: passed" || echo "image-check: FAILED" >&2
    exit "$status"
}

main
