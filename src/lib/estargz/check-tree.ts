// Checks that need no contents: a TOC against the tar it describes, landmarks, whiteouts.

import {decodeBase64} from '../io/base64.ts'
import {baseName} from '../tar/path.ts'
import {payloadOffsetOf, type TarEntry, type TarTime} from '../tar/tar-entry.ts'
import type {Finding} from './finding.ts'
import type {LayerFile} from './index-toc.ts'
import {isLandmark, LANDMARK_CONTENTS, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME} from './landmark.ts'
import {formatModtime, parseTocTime} from './toc-of-plan.ts'

/** Compares what the TOC says of each file with what the tar says. `streamStarts` are tar positions by blob offset. */
export function checkTree(
  files: ReadonlyMap<string, LayerFile>,
  entries: readonly TarEntry[],
  streamStarts: ReadonlyMap<number, number>,
): Finding[] {
  const findings: Finding[] = []
  const found = new Map<string, TarEntry>()
  for (const entry of entries) {
    if (entry.path !== TOC_NAME) found.set(entry.path, entry)
  }
  for (const [path, entry] of found) {
    const file = files.get(path)
    const problem = file ? differenceOf(file, entry, streamStarts) : 'is in the tar but not in the TOC'
    if (problem) findings.push({kind: 'tree', path, message: `${quote(path)} ${problem}`})
  }
  for (const path of files.keys()) {
    if (!found.has(path))
      findings.push({kind: 'tree', path, message: `${quote(path)} is in the TOC but not in the tar`})
  }
  return findings
}

/** The first thing in which TOC and tar differ. */
function differenceOf(
  {entry, chunks}: LayerFile,
  tar: TarEntry,
  streamStarts: ReadonlyMap<number, number>,
): string | undefined {
  const says = (what: string, inToc: unknown, inTar: unknown) =>
    `has ${what} ${JSON.stringify(inToc)} in the TOC, ${JSON.stringify(inTar)} in the tar`
  if (entry.type !== tar.type) return says('type', entry.type, tar.type)
  const pairs: readonly [string, unknown, unknown][] = [
    ['size', entry.size ?? 0, tar.size],
    ['mode', entry.mode ?? 0, tar.mode],
    ['uid', entry.uid ?? 0, tar.uid],
    ['gid', entry.gid ?? 0, tar.gid],
    ['link target', entry.linkName ?? '', tar.linkName],
  ]
  for (const [what, inToc, inTar] of pairs) if (inToc !== inTar) return says(what, inToc, inTar)
  if (!isTimeOf(entry.modtime, tar)) return says('modification time', entry.modtime ?? '', formatModtime(tar))
  const isDevice = tar.type === 'char' || tar.type === 'block'
  if (isDevice && (entry.devMajor ?? 0) !== tar.devMajor) return says('major', entry.devMajor, tar.devMajor)
  if (isDevice && (entry.devMinor ?? 0) !== tar.devMinor) return says('minor', entry.devMinor, tar.devMinor)
  const xattr = differentXattr(entry.xattrs ?? {}, tar.xattrs ?? new Map())
  if (xattr !== undefined) return `has another extended attribute ${quote(xattr)} in the TOC than in the tar`
  const misplaced = chunks.find(
    ({offset, innerOffset, chunkOffset}) =>
      (streamStarts.get(offset) ?? Number.NaN) + innerOffset !== payloadOffsetOf(tar) + chunkOffset,
  )
  return misplaced && `has a chunk at ${misplaced.offset} that is not where its contents are in the tar`
}

/** eStargz rounds times to seconds, zstd:chunked has them exactly. */
function isTimeOf(modtime: string | undefined, {mtimeSeconds, mtimeNanoseconds}: TarEntry): boolean {
  const time = parseTocTime(modtime)
  const exact = {seconds: mtimeSeconds, nanoseconds: mtimeNanoseconds}
  const rounded = {seconds: mtimeSeconds + Math.round(mtimeNanoseconds / 1e9), nanoseconds: 0}
  const isSame = (left: TarTime) => left.seconds === time?.seconds && left.nanoseconds === time.nanoseconds
  return isSame(exact) || isSame(rounded)
}

function differentXattr(
  inToc: Readonly<Record<string, string>>,
  inTar: ReadonlyMap<string, Uint8Array>,
): string | undefined {
  for (const name of new Set([...Object.keys(inToc), ...inTar.keys()])) {
    const left = Object.hasOwn(inToc, name) ? decodeBase64(inToc[name]!) : undefined
    const right = inTar.get(name)
    const isSame = left?.length === right?.length && left?.every((byte, index) => byte === right?.[index])
    if (!isSame) return name
  }
  return undefined
}

/** A layer has one landmark, of one byte; that of a layer without prioritised files comes first. */
export function checkLandmark(files: ReadonlyMap<string, LayerFile>): Finding[] {
  const wrong = (path: string, problem: string): Finding => ({
    kind: 'landmark',
    path,
    message: `Landmark ${quote(path)} ${problem}`,
  })
  const landmarks = [...files.values()].filter(({path}) => isLandmark(path))
  const [landmark] = landmarks
  if (!landmark) return [wrong(NO_PREFETCH_LANDMARK, `or ${quote(PREFETCH_LANDMARK)} is missing`)]
  if (landmarks.length > 1) return [wrong(landmark.path, 'is not the only one')]
  const {path, entry, chunks} = landmark
  const findings: Finding[] = []
  if (entry.type !== 'reg' || entry.size !== 1) findings.push(wrong(path, 'is not a file of one byte'))
  else if (entry.digest !== LANDMARK_DIGEST)
    findings.push(wrong(path, `does not contain 0x${LANDMARK_CONTENTS.toString(16).padStart(2, '0')}`))
  if ((chunks[0]?.innerOffset ?? 0) !== 0) findings.push(wrong(path, 'does not start a stream'))
  const first = files.values().next().value
  if (path === NO_PREFETCH_LANDMARK && first !== landmark)
    findings.push(wrong(path, 'is not the first entry'))
  return findings
}

/** sha256 of the byte 0x0f. */
const LANDMARK_DIGEST = 'sha256:dc0e9c3658a1a3ed1ec94274d8b19925c93e1abb7ddba294923ad9bde30f8cb8'

/** The prefix of files that delete (OCI image-spec, layer.md "Whiteouts"), and the name that hides a whole directory. */
const WHITEOUT = '.wh.'
const OPAQUE = '.wh..wh..opq'
/** AUFS kept its own files under this prefix, and they are still seen in old images. */
const AUFS = '.wh..wh.'

/** Whiteouts are empty regular files that name a file. */
export function checkWhiteouts(files: ReadonlyMap<string, LayerFile>): Finding[] {
  const findings: Finding[] = []
  for (const {path, entry} of files.values()) {
    const name = baseName(path)
    if (!name.startsWith(WHITEOUT) || (name.startsWith(AUFS) && name !== OPAQUE)) continue
    const target = name.slice(WHITEOUT.length)
    const names = name === OPAQUE || (target !== '' && target !== '.' && target !== '..')
    // Hard links occur: tar writers link one empty file to another.
    const isEmpty = entry.type === 'hardlink' || (entry.type === 'reg' && !entry.size)
    const problem = !names ? 'names no file' : !isEmpty ? 'is not an empty file' : undefined
    if (problem) findings.push({kind: 'whiteout', path, message: `Whiteout ${quote(path)} ${problem}`})
  }
  return findings
}

function quote(path: string): string {
  return JSON.stringify(path)
}
