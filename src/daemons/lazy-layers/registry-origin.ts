// Layers out of registries, by the references in their snapshots' labels.

import {CodedError} from '../../lib/errors/coded-error.ts'
import {openTocImage, tocImageName} from '../../lib/external-toc/toc-image.ts'
import type {LayerRequest} from '../../lib/layer/layer-request.ts'
import type {LayerOrigin} from '../../lib/layer/ports.ts'
import type {BlobSource, CallOptions} from '../../lib/oci/content-store.ts'
import {OCI_LAYER_GZIP} from '../../lib/oci/media-type.ts'
import {parseReference} from '../../lib/oci/reference.ts'
import {createRegistryImageSource} from '../../lib/registry/image.ts'
import type {Registry} from '../../lib/registry/registry.ts'

export function createRegistryOrigin(registry: Registry): LayerOrigin {
  const repositoryOf = ({reference}: LayerRequest) => registry.repository(reference, {access: 'pull'})

  /** Opened by the first read, and again by the next one if that failed. */
  function blob(request: LayerRequest, size: number): BlobSource {
    const {digest} = request
    const repository = repositoryOf(request)
    let opened: Promise<BlobSource> | undefined
    const open = (call: CallOptions) => {
      opened ??= repository.openBlob({mediaType: OCI_LAYER_GZIP, digest, size}, call).catch(error => {
        opened = undefined
        throw error
      })
      return opened
    }
    return {size, read: async (offset, length, call = {}) => (await open(call)).read(offset, length, call)}
  }

  /**
   * Throws `unsupported` for a host that answers with the whole blob whatever it is asked for: each miss would cost a
   * transfer from its start. One that does so only for the last bytes of a blob is asked for others.
   */
  async function expectRanges(request: LayerRequest, size: number, call: CallOptions): Promise<void> {
    const {digest, reference} = request
    const opened = await repositoryOf(request).openBlob({mediaType: OCI_LAYER_GZIP, digest, size}, call)
    await opened.read(0, 1, call)
    if (opened.rangeSupport === 'honoured') return
    throw new CodedError(
      'unsupported',
      `Cannot read layer ${digest} of ${reference} lazily: its registry does not support range requests`,
    )
  }

  return {
    blob,
    openBlob: async (request, tailSize, call) => {
      const {size, bytes} = await repositoryOf(request).readBlobTail(request.digest, tailSize, call)
      const opened = blob(request, size)
      if (bytes.length > 0 || size === 0) return {blob: opened, tail: bytes}
      await expectRanges(request, size, call)
      const length = Math.min(size, tailSize)
      return {blob: opened, tail: await opened.read(size - length, length, call)}
    },
    externalToc: async (request, call) => {
      await using source = createRegistryImageSource(tocImageName(parseReference(request.reference)), {
        registry,
      })
      return await openTocImage(source).tocOf(request.digest, call)
    },
  }
}
