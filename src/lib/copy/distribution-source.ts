// Remembers which repositories blobs came from, as containerd does: a push to the same registry can mount them there.

import type {BlobWriter, CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {ImageTarget} from '../oci/image-store.ts'
import {parseReference} from '../oci/reference.ts'

/** Followed by a host without its port; the value is a sorted list of repository paths, separated by commas. */
const LABEL_PREFIX = 'containerd.io/distribution.source.'

/** What containerd accepts of a label, key and value together, bytes. */
const MAX_LABEL_SIZE = 4096

/** Repositories tried for one push: each that lacks a blob costs a request. */
const MAX_SOURCES = 3

/** `target`, where every blob that is written or found gets a label that says it came from `reference`. */
export function labelledTarget(target: ImageTarget, reference: string): ImageTarget {
  const {domain, path} = parseReference(reference)
  return {
    name: target.name,
    content: labelledContent(target.content, `${LABEL_PREFIX}${hostOf(domain)}`, path),
    ...(target.prepare ? {prepare: target.prepare.bind(target)} : {}),
    publish: target.publish.bind(target),
    [Symbol.asyncDispose]: target[Symbol.asyncDispose].bind(target),
  }
}

/** References to the repositories that these blobs are known to have come from, on the registry of `reference`. */
export async function knownSources(
  content: ContentStore,
  blobs: readonly Descriptor[],
  reference: string,
  options: CallOptions = {},
): Promise<string[]> {
  const {domain} = parseReference(reference)
  const counts = new Map<string, number>()
  for (const blob of blobs) {
    const info = await content.info(blob, options)
    for (const path of pathsOf(info?.labels[`${LABEL_PREFIX}${hostOf(domain)}`])) {
      counts.set(path, (counts.get(path) ?? 0) + 1)
    }
  }
  const byCount = [...counts].sort(([, a], [, b]) => b - a).map(([path]) => `${domain}/${path}`)
  return byCount.filter(isReference).slice(0, MAX_SOURCES)
}

function labelledContent(content: ContentStore, key: string, path: string): ContentStore {
  return {
    name: content.name,
    open: content.open.bind(content),
    setLabels: content.setLabels.bind(content),
    async info(descriptor, options) {
      const info = await content.info(descriptor, options)
      if (!info) return undefined
      const value = withPath(key, info.labels[key], path)
      if (value === undefined) return info
      await content.setLabels(info.digest, {[key]: value}, options)
      return {...info, labels: {...info.labels, [key]: value}}
    },
    async write(hint, options) {
      return labellingWriter(await content.write(hint, options), {[key]: path})
    },
  }
}

function labellingWriter(writer: BlobWriter, labels: Readonly<Record<string, string>>): BlobWriter {
  return {
    ...(writer.offset === undefined ? {} : {offset: writer.offset}),
    write: writer.write.bind(writer),
    commit: (expected, options) =>
      writer.commit(expected, {...options, labels: {...labels, ...options?.labels}}),
    [Symbol.asyncDispose]: writer[Symbol.asyncDispose].bind(writer),
  }
}

/** The label's value with `path` among the others; undefined when it has it already, or has no room for it. */
function withPath(key: string, value: string | undefined, path: string): string | undefined {
  const paths = pathsOf(value)
  if (paths.includes(path)) return undefined
  const joined = [...paths, path].sort().join(',')
  return key.length + joined.length > MAX_LABEL_SIZE ? undefined : joined
}

function pathsOf(value: string | undefined): string[] {
  return (value ?? '').split(',').filter(path => path !== '')
}

/** Labels are anybody's text. */
function isReference(text: string): boolean {
  try {
    parseReference(text)
    return true
  } catch {
    return false
  }
}

/** A domain without its port: containerd's label has none. */
function hostOf(domain: string): string {
  return domain.replace(/:\d+$/, '')
}
