#!/bin/sh
# Converts an image in a directory, the OCI image layout that `docker buildx build --output type=oci,tar=false`, `skopeo`
# and `umoci` write. No registry, no daemon, no root; all platforms of the image.
#
#   convert-layout.sh LAYOUT[:TAG] LAYOUT[:TAG]
set -eu
PATH=$(cd "$(dirname "$0")/../bin" && pwd):$PATH

ctr-remote image convert --estargz --oci --all-platforms "oci:$1" "oci:$2"
ctr-remote image inspect "oci:$2"
