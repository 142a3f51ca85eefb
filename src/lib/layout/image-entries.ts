// Images as entries of a layout's index: their names and records in annotations, in the spelling other tools read.

import {CONTAINERD_IMAGE_NAME, REF_NAME} from '../oci/annotations.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {withAnnotations} from '../oci/descriptor.ts'
import type {ImageRecord} from '../oci/image-store.ts'

/** When the local store first and last pointed a name at something, RFC 3339. */
const CREATED_AT = 'io.ctr-remote.created-at'
const UPDATED_AT = 'io.ctr-remote.updated-at'
/** Prefix of an image's labels. */
const LABEL = 'io.ctr-remote.label/'

/** An entry as other tools left it may lack times; this sorts before every real one. */
const UNKNOWN_TIME = '1970-01-01T00:00:00.000Z'

/** The name of an entry: containerd's full name, else the layout's reference name; undefined when it has none. */
export function nameOfEntry(entry: Descriptor): string | undefined {
  return entry.annotations?.[CONTAINERD_IMAGE_NAME] || entry.annotations?.[REF_NAME] || undefined
}

/** The entry that `oci:PATH:TAG` means: the first whose reference name it is, else whose full name it is. */
export function findEntry(entries: readonly Descriptor[], tag: string): Descriptor | undefined {
  return (
    entries.find(entry => entry.annotations?.[REF_NAME] === tag) ??
    entries.find(entry => entry.annotations?.[CONTAINERD_IMAGE_NAME] === tag)
  )
}

/** The record that a named entry holds. */
export function recordOfEntry(name: string, entry: Descriptor): ImageRecord {
  const annotations = entry.annotations ?? {}
  const labels = Object.entries(annotations).flatMap(([key, value]) =>
    key.startsWith(LABEL) ? [[key.slice(LABEL.length), value] as const] : [],
  )
  const createdAt = annotations[CREATED_AT] ?? UNKNOWN_TIME
  return {
    name,
    target: plainTarget(entry),
    labels: Object.fromEntries(labels),
    createdAt,
    updatedAt: annotations[UPDATED_AT] ?? createdAt,
  }
}

/** The entry of a record. Both names are the full one: skopeo matches the first, containerd imports the second. */
export function entryOfRecord(record: ImageRecord): Descriptor {
  return withAnnotations(plainTarget(record.target), {
    ...Object.fromEntries(Object.entries(record.labels).map(([key, value]) => [`${LABEL}${key}`, value])),
    [REF_NAME]: record.name,
    [CONTAINERD_IMAGE_NAME]: record.name,
    [CREATED_AT]: record.createdAt,
    [UPDATED_AT]: record.updatedAt,
  })
}

/** The descriptor without what an index entry says about its name. */
export function plainTarget(entry: Descriptor): Descriptor {
  const own = Object.keys(entry.annotations ?? {}).filter(
    key =>
      key === REF_NAME ||
      key === CONTAINERD_IMAGE_NAME ||
      key === CREATED_AT ||
      key === UPDATED_AT ||
      key.startsWith(LABEL),
  )
  return own.length === 0
    ? entry
    : withAnnotations(entry, Object.fromEntries(own.map(key => [key, undefined])))
}
