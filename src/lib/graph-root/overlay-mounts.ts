// Which root file systems of containers are mounted, in any mount namespace of this machine.

import {readdir, readFile, readlink} from 'node:fs/promises'

/** A mount point of an overlayfs that has one of `names`, which nothing else contains, among its lower directories. */
export async function findOverlayOf(names: readonly string[]): Promise<string | undefined> {
  const escaped = names.map(escapeAsKernel)
  const seen = new Set<string>()
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    // Processes end while they are looked at.
    const namespace = await readlink(`/proc/${name}/ns/mnt`).catch(() => undefined)
    if (namespace === undefined || seen.has(namespace)) continue
    const mounts = await readFile(`/proc/${name}/mountinfo`, 'utf8').catch(() => undefined)
    if (mounts === undefined) continue
    seen.add(namespace)
    const line = mounts.split('\n').find(text => isOverlayOf(text, escaped))
    if (line) return line.split(' ')[4]
  }
  return undefined
}

function isOverlayOf(line: string, names: readonly string[]): boolean {
  return line.includes(' - overlay ') && names.some(name => line.includes(name))
}

/** As mountinfo shows names (proc_pid_mountinfo(5)). */
function escapeAsKernel(name: string): string {
  return name.replace(/[ \t\n\\]/g, character => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`)
}
