// What overlayfs has to be told on this machine, for every mount that containerd makes from our answers.

import {existsSync, readFileSync} from 'node:fs'

const PARAMETERS = '/sys/module/overlay/parameters'

/**
 * `xino=on` where the kernel knows it: files of all layers are then on one device, with numbers of their own, as programs
 * like `du -x`, `find -xdev` and `rsync -x` expect. Where numbers have no room for that, the kernel goes on without.
 */
export function inodeOptionsOfThisMachine(): string[] {
  return existsSync(`${PARAMETERS}/xino_auto`) ? ['xino=on'] : []
}

/** `index=off` where the kernel knows it, since layers are lower directories of many mounts; `userxattr` without root. */
export function overlayOptionsOfThisMachine(): string[] {
  return [
    ...(existsSync(`${PARAMETERS}/index`) ? ['index=off'] : []),
    ...(inUserNamespace() ? ['userxattr'] : []),
  ]
}

/** True in any namespace but the initial one, which maps every id to itself. */
function inUserNamespace(): boolean {
  try {
    return !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'))
  } catch {
    return false
  }
}
