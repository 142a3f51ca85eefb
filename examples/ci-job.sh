#!/bin/sh
# A CI job after "build and push": makes the pushed image start fast, from registry to registry. Nothing runs but
# ctr-remote and, inside it, runc: no daemon, no Docker-in-Docker. The job needs root, for the sandbox.
#
#   ci-job.sh SOURCE TARGET [READY]       ci-job.sh registry.example/app:1.2 registry.example/app:1.2-esgz 'Listening on'
#
# The image's own command is what is watched: for ten seconds, or until it prints a line that contains READY.
# Credentials are those of `docker login`.
set -eu
PATH=$(cd "$(dirname "$0")/../bin" && pwd):$PATH

source=$1 target=$2 ready=${3-}

# Layers that are optimized already and that nothing was read from stay as they are: the next build of the same image
# sends only what changed.
ctr-remote image optimize --oci --reuse ${ready:+--wait-on-line "$ready"} "docker://$source" "docker://$target"

# The job fails when what is in the registry is not sound, whatever the reason.
ctr-remote image verify "docker://$target"
