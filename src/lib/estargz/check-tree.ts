// Checks that need no contents: a TOC against the tar it describes, landmarks, whiteouts.

import {CodedError} from '../errors/coded-error.ts'
import {decodeBase64} from '../io/base64.ts'
import {payloadOffsetOf, type TarEntry, type TarTime} from '../tar/tar-entry.ts'
import {compareUnpacked} from './check-places.ts'
import type {Finding} from './finding.ts'
import {filesByPath, type LayerFile} from './index-toc.ts'
import {isLandmark, LANDMARK_CONTENTS, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME} from './landmark.ts'
import {formatModtime, nearestTocSecond, parseTocTime, roundedModtime} from './toc-of-plan.ts'

/**
 * Compares what the TOC says of each file, in its order, with what the tar says. `streamStarts` are tar positions by blob
 * offset.
 */
export function checkTree(
  allFiles: readonly LayerFile[],
  entries: readonly TarEntry[],
  streamStarts: ReadonlyMap<number, number>,
): Finding[] {
  const ownFiles = allFiles.filter(({path}) => path !== TOC_NAME)
  const own = entries.filter(({path}) => path !== TOC_NAME)
  const findings: Finding[] = []
  if (ownFiles.length === own.length && own.every(({path}, index) => path === ownFiles[index]!.path)) {
    for (const [index, {path}] of own.entries()) {
      const problem = differenceOf(ownFiles[index]!, own[index]!, streamStarts)
      if (problem) findings.push({kind: 'tree', path, message: `${quote(path)} ${problem}`})
    }
    return findings
  }
  // Other tools leave out what is replaced later, or have another order: by name it must fit, and unpacked as well.
  findings.push(...checkNames(filesByPath(ownFiles), own, streamStarts))
  if (findings.length > 0) return findings
  const described = ownFiles.map(file => {
    if (file.entry.type === 'chunk') throw new CodedError('internal', 'Cannot take a chunk for a file')
    const {name, type, linkName = ''} = file.entry
    return {name, type, linkName, file}
  })
  return compareUnpacked(described, own, (file, entry) => differenceOf(file, entry, streamStarts))
}

function checkNames(
  files: ReadonlyMap<string, LayerFile>,
  entries: readonly TarEntry[],
  streamStarts: ReadonlyMap<number, number>,
): Finding[] {
  const findings: Finding[] = []
  const found = new Map(entries.map(entry => [entry.path, entry]))
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
function isTimeOf(modtime: string | undefined, tar: TarEntry): boolean {
  const time = parseTocTime(modtime)
  const exact = {seconds: nearestTocSecond(tar.mtimeSeconds), nanoseconds: tar.mtimeNanoseconds}
  const rounded = {seconds: roundedModtime(tar), nanoseconds: 0}
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

function quote(path: string): string {
  return JSON.stringify(path)
}
