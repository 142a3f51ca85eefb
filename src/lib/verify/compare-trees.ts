// Two layers unpacked: every difference between their trees, in words.

import type {FileNode} from '../vfs/file-tree.ts'

/** A file with everything in it: where its contents are differs between any two layers. */
export interface Difference {
  readonly path: string
  /** Goes on after the path. */
  readonly problem: string
}

/** Says whether two files of the same size have the same contents. */
export type SameContents = (source: FileNode, converted: FileNode) => Promise<boolean>

/** All differences but the roots' own attributes, which nobody unpacks. */
export async function* compareTrees(
  source: FileNode,
  converted: FileNode,
  haveSameContents: SameContents,
): AsyncGenerator<Difference> {
  const partners = {ofSource: new Map<FileNode, FileNode>(), ofConverted: new Map<FileNode, FileNode>()}
  const pending: {path: string; from: FileNode | undefined; to: FileNode | undefined}[] = [
    {path: '', from: source, to: converted},
  ]
  for (let pair = pending.pop(); pair; pair = pending.pop()) {
    const {path, from, to} = pair
    if (!from || !to) {
      yield {path, problem: from ? 'is in the source alone' : 'is not in the source'}
      continue
    }
    const problem =
      (path === '' ? undefined : differenceOf(from, to)) ??
      (await differentFile(from, to, partners, haveSameContents))
    if (problem !== undefined) yield {path, problem}
    if (from.type !== 'dir' || to.type !== 'dir') continue
    const names = new Set([...from.children.keys(), ...to.children.keys()])
    for (const name of [...names].reverse()) {
      const below = path === '' ? name : `${path}/${name}`
      pending.push({path: below, from: from.children.get(name), to: to.children.get(name)})
    }
  }
}

/** The first attribute in which two nodes differ. */
function differenceOf(from: FileNode, to: FileNode): string | undefined {
  const pairs: readonly (readonly [string, unknown, unknown])[] = [
    ['type', from.type, to.type],
    ['mode', from.mode.toString(8), to.mode.toString(8)],
    ['owner', `${from.uid}:${from.gid}`, `${to.uid}:${to.gid}`],
    ['modification time', timeOf(from), timeOf(to)],
    ['size', from.size, to.size],
    ['link target', from.linkName, to.linkName],
    ['device', `${from.devMajor}:${from.devMinor}`, `${to.devMajor}:${to.devMinor}`],
  ]
  for (const [what, inSource, here] of pairs) {
    if (inSource !== here) {
      return `has ${what} ${JSON.stringify(here)}, and ${JSON.stringify(inSource)} in the source`
    }
  }
  const names = new Set([...(from.xattrs?.keys() ?? []), ...(to.xattrs?.keys() ?? [])])
  for (const name of names) {
    const [one, other] = [from.xattrs?.get(name), to.xattrs?.get(name)]
    if (!one || !other || Buffer.compare(one, other) !== 0) {
      return `has another extended attribute ${JSON.stringify(name)} than in the source`
    }
  }
  return undefined
}

function timeOf({mtimeSeconds, mtimeNanoseconds}: FileNode): string {
  return `${mtimeSeconds}.${String(mtimeNanoseconds).padStart(9, '0')}`
}

/** Names of one file in the source must be names of one file here, and contents the same; each file is read once. */
async function differentFile(
  from: FileNode,
  to: FileNode,
  {ofSource, ofConverted}: {ofSource: Map<FileNode, FileNode>; ofConverted: Map<FileNode, FileNode>},
  haveSameContents: SameContents,
): Promise<string | undefined> {
  if (from.type === 'dir' || to.type === 'dir') return undefined
  const [partner, other] = [ofSource.get(from), ofConverted.get(to)]
  if (partner === to && other === from) return undefined
  if (partner || other) return 'is hard linked to other names than in the source'
  ofSource.set(from, to)
  ofConverted.set(to, from)
  if (from.type !== 'reg' || from.size === 0 || (await haveSameContents(from, to))) return undefined
  return 'has other contents than in the source'
}
