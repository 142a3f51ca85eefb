# Run by busybox's sh in a root that has nothing but a C library, with a release unpacked below /usr/local and an image in
# /image: converts, verifies, goes from registry to registry, and has the daemon serve.
set -eu
export PATH=/usr/local/bin:/usr/bin:/bin HOME=/root
busybox() { /bin/busybox "$@"; }
for program in ctr-remote containerd-stargz-grpc stargz-store; do $program --version; done
ctr-remote autocomplete script bash | busybox grep -q CTR_REMOTE

# The programs of one file each: two first starts at once, one that is killed, a damaged file, another place, another user.
for number in 1 2; do /opt/ctr-remote --version >/version$number & done
/opt/containerd-stargz-grpc --version
wait
busybox cmp /version1 /version2
[ "$(busybox ls -A /var/lib/ctr-remote | busybox wc -l)" = 1 ]
/opt/ctr-remote --version | busybox grep -q ctr-remote
busybox rm -r /var/lib/ctr-remote
/opt/ctr-remote --version >/dev/null & killed=$!
until [ -e /var/lib/ctr-remote/.part-*/lib ]; do busybox usleep 10000; done
kill -9 $killed
[ ! -e /var/lib/ctr-remote/0* ]
/opt/ctr-remote --version | busybox grep -q ctr-remote
busybox mkdir /damaged
busybox head -c 20000000 /opt/ctr-remote >/damaged/ctr-remote
busybox chmod 755 /damaged/ctr-remote
! CTR_REMOTE_UNPACK_DIR=/elsewhere /damaged/ctr-remote --version 2>/refused
busybox grep 'Cannot start: .* is damaged' /refused
[ -z "$(busybox ls -A /elsewhere)" ]
CTR_REMOTE_UNPACK_DIR=/elsewhere /opt/ctr-remote --version | busybox grep -q ctr-remote
busybox cp /opt/ctr-remote /damaged/other
! /damaged/other 2>/refused
busybox grep 'this file is one of' /refused

ctr-remote image convert --estargz --oci oci:/image:localhost/app:latest oci:/converted:esgz
ctr-remote image verify oci:/converted:esgz

ctr-remote registry serve --listen 127.0.0.1:0 --quiet >/registry & registry=$!
daemon=
trap 'kill $registry $daemon' EXIT
until [ -s /registry ]; do busybox usleep 100000; done
IFS=/ read -r _ _ address </registry
ctr-remote image convert --gzip --oci oci:/image:localhost/app:latest "docker://$address/one:1"
ctr-remote image convert --estargz --oci "docker://$address/one:1" "docker://$address/two:1"
ctr-remote image verify "docker://$address/two:1"

containerd-stargz-grpc --address /run/snapshotter.sock --root /var/lib/snapshotter --log-level debug & daemon=$!
until [ -S /run/snapshotter.sock ]; do kill -0 $daemon; busybox usleep 100000; done
ctr-remote lazy status --snapshotter-address /run/snapshotter.sock
kill -INT $daemon
wait $daemon
daemon=
echo served
