// What a layer's tar unpacks to, as text that can be compared.

import {digestOf} from '../../src/lib/blob/sha256.ts'
import {isLandmark, TOC_NAME} from '../../src/lib/estargz/landmark.ts'
import {cleanPath} from '../../src/lib/tar/path.ts'
import {payloadOffsetOf, type TarEntry} from '../../src/lib/tar/tar-entry.ts'
import {entriesOf} from '../support/layers.ts'

/** Every path with all that is known of the file, but for landmarks and TOC, which conversion adds. */
export function treeOf(tar: Uint8Array): ReadonlyMap<string, string> {
  const tree = new Map<string, string>()
  for (const entry of entriesOf(tar)) {
    if (isLandmark(entry.path) || entry.path === TOC_NAME) continue
    tree.set(entry.path, describe(entry, tar))
  }
  return new Map([...tree].sort(([left], [right]) => (left < right ? -1 : 1)))
}

/** The digests of regular files, by path. */
export function contentsOf(tar: Uint8Array): ReadonlyMap<string, string> {
  const files = entriesOf(tar).filter(({path}) => !isLandmark(path) && path !== TOC_NAME)
  const last = new Map(files.map(entry => [entry.path, entry]))
  return new Map(
    [...last.values()]
      .filter(({type}) => type === 'reg')
      .map(entry => [entry.path, digestOf(payloadOf(entry, tar))]),
  )
}

function describe(entry: TarEntry, tar: Uint8Array): string {
  const {type, mode, uid, gid, userName, groupName, mtimeSeconds, mtimeNanoseconds, xattrs} = entry
  const attributes = [...(xattrs ?? [])].map(
    ([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`,
  )
  return [
    type,
    mode.toString(8),
    `${uid}:${gid}`,
    `${userName}:${groupName}`,
    `${mtimeSeconds}.${mtimeNanoseconds}`,
    type === 'hardlink' ? cleanPath(entry.linkName) : entry.linkName,
    type === 'char' || type === 'block' ? `${entry.devMajor},${entry.devMinor}` : '',
    type === 'reg' ? digestOf(payloadOf(entry, tar)) : '',
    ...attributes.sort(),
  ].join(' ')
}

function payloadOf(entry: TarEntry, tar: Uint8Array): Uint8Array {
  return tar.subarray(payloadOffsetOf(entry), payloadOffsetOf(entry) + entry.size)
}
