#!/bin/sh
# Watches a workload once and uses what was learnt for many builds: the record file is small, is kept with the source
# code, and later conversions need neither root nor a run. Files that a later build lacks are no error.
#
#   record-reuse.sh RECORD SOURCE TARGET         places as docker://HOST/NAME:TAG or oci:DIRECTORY
#
# Without the file RECORD the image is run and RECORD is written, which needs root; with it, it is read.
set -eu
PATH=$(cd "$(dirname "$0")/../bin" && pwd):$PATH

record=$1 source=$2 target=$3
if [ -e "$record" ]; then
  ctr-remote image convert --estargz --oci --estargz-record-in "$record" "$source" "$target"
else
  ctr-remote image optimize --oci --record-out "$record" "$source" "$target"
fi
