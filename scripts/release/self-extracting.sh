#!/bin/sh
# The programs of ctr-remote @VERSION@ in one file, which is the one that it is called. The first start unpacks what follows
# these lines, below /var/lib/ctr-remote for root, who does it for everybody, else in the user's cache directory;
# $CTR_REMOTE_UNPACK_DIR is another place. Later starts go there straight away.
set -eu
program=${0##*/}
id=@ID@

fail() {
  echo "$program: Cannot start: $*" >&2
  exit 1
}

# Sets $home: where the programs are, or are to be.
find_home() {
  home=/var/lib/ctr-remote/$id
  if [ -n "${CTR_REMOTE_UNPACK_DIR-}" ]; then
    home=$CTR_REMOTE_UNPACK_DIR/$id
  elif [ ! -x "$home/lib/ctr-remote/node" ] && [ "$(id -u)" -ne 0 ]; then
    cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
    [ -n "$cache" ] || fail 'there is no place to unpack to: set HOME or CTR_REMOTE_UNPACK_DIR'
    home=$cache/ctr-remote/programs/$id
  fi
}

# Whole or not at all, whoever else does it at the same time, and whenever it is killed.
unpack() {
  directory=${home%/*}
  umask 022
  mkdir -p "$directory" || fail "CTR_REMOTE_UNPACK_DIR can name another directory than $directory"
  find "$directory" -maxdepth 1 -name '.part-*' -mtime +0 -exec rm -rf {} + || true
  part=$(mktemp -d "$directory/.part-XXXXXX") ||
    fail "CTR_REMOTE_UNPACK_DIR can name another directory than $directory"
  trap 'rm -rf "$part"' EXIT
  trap 'exit 130' INT TERM HUP
  tail -c +@START@ "$0" | tar -C "$part" -xzf - || fail "$0 is damaged, or the disk of $directory is full"
  [ -x "$part/lib/ctr-remote/node" ] ||
    fail "$directory is mounted noexec: CTR_REMOTE_UNPACK_DIR can name another directory"
  chmod 755 "$part"
  sync -f "$part" 2>/dev/null || sync
  mv -T "$part" "$home" 2>/dev/null || [ -x "$home/lib/ctr-remote/node" ] || fail "cannot make $home"
  rm -rf "$part"
  trap - EXIT INT TERM HUP
}

case "$program" in
  @PROGRAMS@) ;;
  *) fail "this file is one of @PROGRAMS@, by its name" ;;
esac
find_home
[ -x "$home/lib/ctr-remote/node" ] || unpack
exec "$home/bin/$program" "$@"
