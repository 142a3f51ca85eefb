#!/bin/bash
# The console sessions of stargz-snapshotter's documents, as they are written there, against this package: who has them in
# scripts and fingers goes on with them. Each command is shown before it runs, and one that fails ends the script.
#
#   sessions.sh              all of them, in this order
#   sessions.sh readme …     some
#
# containerd with this package's snapshotter is running, as root; ctr-remote finds it as ever ($CONTAINERD_ADDRESS,
# $CONTAINERD_NAMESPACE). The images come from $ORIGIN, by default ghcr.io and docker.io, and go to $REGISTRY, by default
# registry2:5000 as in the documents, which speaks plain HTTP.
set -euo pipefail
PATH=$(cd "$(dirname "$0")/../../bin" && pwd):$PATH

registry=${REGISTRY:-registry2:5000}
images=${ORIGIN:-ghcr.io}/stargz-containers
ubuntu=${ORIGIN:-docker.io}/library/ubuntu:18.04
golang=$images/golang:1.15.3-buster-org
python=$images/python:3.9-org
jammy=$images/ubuntu:22.04

title() { printf '\n== %s\n' "$*"; }

# Shows a command and runs it.
run() {
  printf '#'
  printf ' %q' "$@"
  printf '\n'
  "$@"
}

# Runs a command on a terminal, where a person types the lines of stdin.
on_terminal() {
  printf '#'
  printf ' %q' "$@"
  printf '\n'
  script -qec "$(printf '%q ' "$@")" /dev/null | tr -d '\r'
}

readme() {
  title 'README.md: creating eStargz images with optimization'
  run ctr-remote image pull "$ubuntu"
  run ctr-remote image optimize --entrypoint='[ "/bin/bash", "-c" ]' --args='[ "ls" ]' "$ubuntu" "$registry/ubuntu:18.04"
  run ctr-remote image push --plain-http "$registry/ubuntu:18.04"
  run ctr-remote image rm --sync "$registry/ubuntu:18.04"
  run ctr-remote images rpull --plain-http "$registry/ubuntu:18.04"
  printf 'ls\nexit\n' | on_terminal ctr-remote run --rm -t --snapshotter=stargz "$registry/ubuntu:18.04" test /bin/bash
}

optimize() {
  title 'ctr-remote.md: optimizing an image'
  run ctr-remote image pull --all-platforms "$golang"
  run ctr-remote image optimize --oci "$golang" "$registry/golang:1.15.3-esgz"
  run ctr-remote image push --plain-http "$registry/golang:1.15.3-esgz"
  run ctr-remote image rpull --plain-http "$registry/golang:1.15.3-esgz"
  on_terminal ctr-remote run --rm -t --snapshotter=stargz "$registry/golang:1.15.3-esgz" test echo hello </dev/null

  title 'ctr-remote.md: custom configuration, files from the host, networks'
  run ctr-remote image optimize --oci \
    --entrypoint='[ "/bin/bash", "-c" ]' --args='[ "go version" ]' \
    "$golang" "$registry/golang:1.15.3-esgz-go-version"
  source=$(mktemp)
  printf 'package main\n\nimport "fmt"\n\nfunc main() {\n     fmt.Println("hello world")\n}\n' >"$source"
  run ctr-remote image optimize --oci \
    --mount=type=bind,source="$source",destination=/hello.go,options=bind:ro \
    --entrypoint='[ "/bin/bash", "-c" ]' --args='[ "go build -o /hello /hello.go && /hello" ]' \
    "$golang" "$registry/golang:1.15.3-esgz-hello-world"
  rm "$source"
  if [ -n "${CNI_CONFIG-}" ]; then
    run ctr-remote image optimize --oci \
      --cni --cni-plugin-config-dir="$CNI_CONFIG" --cni-plugin-dir="$CNI_PLUGINS" \
      --add-hosts=example.com:192.0.2.1 --dns-nameservers=192.0.2.53 \
      --dns-search-domains=example.com --dns-options=ndots:2 \
      --entrypoint='[ "/bin/bash", "-c" ]' --args='[ "cat /etc/hosts /etc/resolv.conf" ]' \
      "$golang" "$registry/golang:1.15.3-esgz-curl"
  fi

  title 'ctr-remote.md: reusing layers, and other platforms'
  run ctr-remote image optimize --oci --reuse "$registry/golang:1.15.3-esgz-go-version" "$registry/golang:1.15.3-again"
  run ctr-remote image optimize --oci --all-platforms "$golang" "$registry/golang:1.15.3-esgz-fat"
  run ctr-remote image optimize --oci --all-platform "$golang" "$registry/golang:1.15.3-esgz-fat"
  run ctr-remote image optimize --oci --platform=amd64 "$golang" "$registry/golang:1.15.3-esgz-one"
}

state() {
  title 'overview.md: the state directory, of layers that are mounted by FUSE (mount_backend = "fuse")'
  printf 'ls -a /\nls /.stargz-snapshotter/*\ncat /.stargz-snapshotter/*\nexit\n' |
    on_terminal ctr-remote run --rm -t --snapshotter=stargz "$registry/golang:1.15.3-esgz" test /bin/bash
}

smaller() {
  title 'smaller-estargz.md: TOCs in an image of their own'
  run ctr-remote i pull "$jammy"
  run ctr-remote i convert --oci --estargz --estargz-external-toc "$jammy" "$registry/ubuntu:22.04-ex"
  run ctr-remote i push --plain-http "$registry/ubuntu:22.04-ex"
  run ctr-remote i push --plain-http "$registry/ubuntu:22.04-ex-esgztoc"
  run ctr-remote i rpull --plain-http "$registry/ubuntu:22.04-ex"
  mount | grep 'stargz on'

  title 'smaller-estargz.md: the same DiffIDs'
  run ctr-remote i convert --oci --estargz --estargz-external-toc --estargz-keep-diff-id "$jammy" "$registry/ubuntu:22.04-ex-keepdiff"
  run ctr-remote i push --plain-http "$registry/ubuntu:22.04-ex-keepdiff"
  run ctr-remote i push --plain-http "$registry/ubuntu:22.04-ex-keepdiff-esgztoc"
  run ctr-remote i rpull --plain-http "$registry/ubuntu:22.04-ex-keepdiff"

  title 'smaller-estargz.md: larger streams'
  run ctr-remote i convert --oci --estargz --estargz-min-chunk-size=50000 "$jammy" "$registry/ubuntu:22.04-chunk50000"
  run ctr-remote i push --plain-http "$registry/ubuntu:22.04-chunk50000"
  run ctr-remote i rpull --plain-http "$registry/ubuntu:22.04-chunk50000"
}

records() {
  title "records, TOC digests, and containerd's own commands"
  record=$(mktemp)
  run ctr-remote image optimize --oci --period=1 --record-out="$record" "$golang" "$registry/golang:1.15.3-recorded"
  run ctr-remote image convert --oci --estargz --estargz-record-in="$record" "$jammy" "$registry/ubuntu:22.04-recorded" |
    tee "$record.digest"
  manifest=$(tail -n 1 "$record.digest")
  rm "$record" "$record.digest"
  run ctr-remote content get "$manifest" | grep -oE '"containerd.io/snapshot/stargz/toc.digest":"[^"]*"'
  layer=$(ctr-remote content get "$manifest" | sed 's/.*"layers"//' | grep -oE 'sha256:[0-9a-f]{64}' | sed -n 1p)
  run ctr-remote image get-toc-digest "$layer"
  run ctr-remote image get-toc-digest --dump-toc "$layer" | sed -n 1,4p
}

ipfs() {
  if [ ! -e "${IPFS_PATH:-$HOME/.ipfs}/api" ]; then
    title 'ipfs.md: left out, because no IPFS node runs here'
    return
  fi
  title 'ipfs.md: running a container with lazy pulling'
  run ctr-remote i pull "$python"
  pushed=$(run ctr-remote i ipfs-push "$python")
  echo "$pushed"
  cid=${pushed##*$'\n'}
  run ctr-remote i rpull --ipfs "$cid"
  on_terminal ctr-remote run --snapshotter=stargz --rm -t "$cid" foo python -c 'print("Hello, World!")' </dev/null

  title 'ipfs.md: running a container without lazy pulling'
  pushed=$(run ctr-remote i ipfs-push --estargz=false "$python")
  echo "$pushed"
  cid=${pushed##*$'\n'}
  run ctr-remote i rpull --snapshotter=overlayfs --ipfs "$cid"
  on_terminal ctr-remote run --snapshotter=overlayfs --rm -t "$cid" foo python -c 'print("Hello, World!")' </dev/null
}

[ $# -gt 0 ] || set -- readme optimize state smaller records ipfs
for session; do "$session"; done
