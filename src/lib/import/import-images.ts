// Copies the images of an archive into the store under the names that `ctr images import` would give them.

import {importedNames} from '../archive/archive-names.ts'
import type {ImageArchive} from '../archive/image-archive.ts'
import type {copyImage} from '../copy/copy-image.ts'
import {presentPlatforms} from '../copy/present-platforms.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {ProgressSink} from '../io/progress.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {parseReference, repositoryOf} from '../oci/reference.ts'

export interface ImportOptions {
  readonly baseName?: string | undefined
  readonly digests: boolean
  readonly platform?: readonly string[] | undefined
  readonly 'all-platforms'?: boolean
  /** Copies an image, and does what else the store needs. */
  readonly copy: typeof copyImage
  /** The place in the store for an image of this name; disposed here. */
  readonly openTarget: (name: string) => Promise<ImageTarget>
  readonly onProgress: ProgressSink
  readonly signal: AbortSignal
}

/** Resolves to the images by name; throws `not-found` when `baseName` leaves none. */
export async function importImages(
  archive: ImageArchive,
  options: ImportOptions,
): Promise<{name: string; digest: string}[]> {
  const {baseName, digests, copy, onProgress, signal} = options
  const fallbackName = `import-${new Date().toISOString().slice(0, 10)}`
  const imported: {name: string; digest: string}[] = []
  for (const image of archive.images) {
    const names = importedNames(image, {baseName, fallbackName}).filter(name => isBelow(name, baseName))
    if (digests) names.push(...names.map(name => digestName(name, image.target.digest)))
    const source: ImageSource = {
      name: names[0] ?? image.target.digest,
      content: archive.content,
      resolve: async () => image.target,
      async [Symbol.asyncDispose]() {},
    }
    for (const name of new Set(names)) {
      const platforms = await presentPlatforms(source, options, {signal})
      await using target = await options.openTarget(name)
      const {root} = await copy(source, target, {platforms, index: 'sparse', onProgress, signal})
      imported.push({name: target.name, digest: root.digest})
    }
  }
  if (imported.length === 0) {
    throw new CodedError('not-found', `Cannot find an image of the name "${baseName ?? ''}" in the archive`)
  }
  return imported
}

/** `--base-name` also selects, as `ctr` has it. */
function isBelow(name: string, baseName: string | undefined): boolean {
  if (baseName === undefined) return true
  const base = repositoryOf(parseReference(baseName))
  return name === base || [':', '@', '/'].some(separator => name.startsWith(`${base}${separator}`))
}

function digestName(name: string, digest: string): string {
  return `${repositoryOf(parseReference(name))}@${digest}`
}
