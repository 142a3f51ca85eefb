// Unpacks an image while it is being pulled: a layer is applied as soon as it is there.

import type {ContainerdStore} from '../containerd/store.ts'
import {unpackImage} from '../containerd/unpack.ts'
import {type CopiedImage, type CopyImageOptions, copyImage} from '../copy/copy-image.ts'
import {type ImageTree, isAttestation, type ManifestNode, readConfig} from '../image/image-tree.ts'
import {settleAll} from '../io/settle-all.ts'
import type {ContentStore} from '../oci/content-store.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {isConfigMediaType} from '../oci/media-type.ts'
import {matchesPlatform, type Platform} from '../oci/platform.ts'

export interface CopyAndUnpackOptions extends CopyImageOptions {
  readonly store: ContainerdStore
  readonly snapshotter: string
  /** Unpack the image for this platform alone, where there is one; else all that are copied. */
  readonly unpackFor?: Platform | undefined
  readonly signal: AbortSignal
}

/** As `copyImage`, and the copied images for Linux are unpacked. The target is one of `options.store`. */
export async function copyAndUnpack(
  source: ImageSource,
  target: ImageTarget,
  options: CopyAndUnpackOptions,
): Promise<CopiedImage> {
  // A signal that is aborted already tells nobody.
  options.signal.throwIfAborted()
  const abort = new AbortController()
  const signal = AbortSignal.any([options.signal, abort.signal])
  const arrivals = watchArrivals(target.content, signal)
  const known = Promise.withResolvers<ImageTree>()
  signal.addEventListener('abort', () => known.reject(signal.reason), {once: true})

  async function unpack(): Promise<undefined> {
    const {manifests} = await known.promise
    const {unpackFor} = options
    const isWanted = ({platform}: ManifestNode) =>
      unpackFor === undefined || (platform !== undefined && matchesPlatform(unpackFor, platform))
    for (const {manifest} of manifests.filter(node => isUnpackable(node) && isWanted(node))) {
      const config = await readConfig(source.content, manifest, {signal})
      await unpackImage(options.store, {...options, signal, manifest, config, contentReady: arrivals.wait})
    }
  }

  const watched = {
    name: target.name,
    content: arrivals.content,
    publish: target.publish.bind(target),
    [Symbol.asyncDispose]: target[Symbol.asyncDispose].bind(target),
  }
  const copy = copyImage(source, watched, {...options, signal, onTree: known.resolve})
  const [copied] = await settleAll<CopiedImage | undefined>([copy, unpack()], abort)
  return copied!
}

/** Images, and for Linux: containerd here could unpack nothing else. */
function isUnpackable({descriptor, manifest, platform}: ManifestNode): boolean {
  return (
    isConfigMediaType(manifest.config.mediaType) && !isAttestation(descriptor) && platform?.os === 'linux'
  )
}

/** `content`, and a way to wait until a blob of it is written or found; waiting ends with `signal`. */
function watchArrivals(
  content: ContentStore,
  signal: AbortSignal,
): {readonly content: ContentStore; readonly wait: (blob: {readonly digest: string}) => Promise<void>} {
  const arrivals = new Map<string, PromiseWithResolvers<void>>()
  const arrivalOf = (digest: string): PromiseWithResolvers<void> => {
    const known = arrivals.get(digest) ?? Promise.withResolvers<void>()
    arrivals.set(digest, known)
    return known
  }
  return {
    content: {
      name: content.name,
      open: content.open.bind(content),
      setLabels: content.setLabels.bind(content),
      async info(descriptor, options) {
        const info = await content.info(descriptor, options)
        if (info) arrivalOf(descriptor.digest).resolve()
        return info
      },
      async write(hint, options) {
        const writer = await content.write(hint, options)
        return {
          ...(writer.offset === undefined ? {} : {offset: writer.offset}),
          write: writer.write.bind(writer),
          async commit(expected, commitOptions) {
            await writer.commit(expected, commitOptions)
            arrivalOf(expected.digest).resolve()
          },
          [Symbol.asyncDispose]: writer[Symbol.asyncDispose].bind(writer),
        }
      },
    },
    async wait({digest}) {
      signal.throwIfAborted()
      const aborted = Promise.withResolvers<never>()
      const stop = () => aborted.reject(signal.reason)
      signal.addEventListener('abort', stop, {once: true})
      try {
        await Promise.race([arrivalOf(digest).promise, aborted.promise])
      } finally {
        signal.removeEventListener('abort', stop)
      }
    },
  }
}
