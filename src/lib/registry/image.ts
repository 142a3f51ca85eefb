// Images in registries, as sources and targets of copies and conversions.

import {CodedError} from '../errors/coded-error.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {formatReference, parseReference, tagOrDigestOf, withDefaultTag} from '../oci/reference.ts'
import {openRegistry, type Registry, type RegistryOptions} from './registry.ts'

export interface RegistryImageOptions extends RegistryOptions {
  /** An open registry to share connections and tokens with; it is not closed with the image, and decides all else. */
  readonly registry?: Registry | undefined
}

export interface RegistryTargetOptions extends RegistryImageOptions {
  /** References that may have the same blobs; those on the same registry are mounted instead of sent. */
  readonly mountFrom?: readonly string[]
}

/** An image to read from a registry. Throws `invalid-argument` for a malformed reference; makes no request. */
export function createRegistryImageSource(text: string, options: RegistryImageOptions = {}): ImageSource {
  const reference = withDefaultTag(parseReference(text))
  const registry = options.registry ?? openRegistry(options)
  const repository = registry.repository(reference, {access: 'pull'})
  return {
    name: `docker://${formatReference(reference)}`,
    content: repository.content,
    resolve: call => repository.resolve(tagOrDigestOf(reference), call),
    [Symbol.asyncDispose]: async () => {
      if (!options.registry) await registry[Symbol.asyncDispose]()
    },
  }
}

/** A place for an image in a registry. Throws `invalid-argument` for a malformed reference; makes no request. */
export function createRegistryImageTarget(text: string, options: RegistryTargetOptions = {}): ImageTarget {
  const reference = withDefaultTag(parseReference(text))
  const registry = options.registry ?? openRegistry(options)
  const mountFrom = options.mountFrom ?? []
  const repository = registry.repository(reference, {access: 'push', mountFrom})
  const name = `docker://${formatReference(reference)}`
  return {
    name,
    content: repository.content,
    async publish(root, call) {
      if (reference.digest !== undefined && reference.digest !== root.digest) {
        throw new CodedError(
          'failed-precondition',
          `Cannot publish ${root.digest} as ${name}: the reference names another digest`,
        )
      }
      await repository.tag(root, reference.tag ?? root.digest, call)
    },
    [Symbol.asyncDispose]: async () => {
      if (!options.registry) await registry[Symbol.asyncDispose]()
    },
  }
}
