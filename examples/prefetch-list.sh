#!/bin/sh
# Optimizes by a list of files instead of running the image: for workloads that cannot run where images are built (they
# want a GPU, a licence, a database). Needs no root. What the list names and the image lacks is no error.
#
#   prefetch-list.sh SOURCE TARGET [LIST]        places as docker://HOST/NAME:TAG or oci:DIRECTORY
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH=$here/../bin:$PATH

ctr-remote image optimize --oci --prefetch-list "${3:-$here/prefetch-list.txt}" "$1" "$2"
