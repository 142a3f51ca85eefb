// An image as eStargz, for a while and on this machine: what is added to IPFS of an image whose layers are not lazy.

import {rm} from 'node:fs/promises'
import type {Places} from '../conversion/conversion-target.ts'
import type {PlatformSelection} from '../image/image-tree.ts'
import {makeTemporaryDirectory} from '../io/temporary-directory.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {optimizeImage} from '../optimize/optimize-image.ts'
import type {PrioritiesContext} from '../optimize/priorities.ts'

/** As `convert --estargz` without further flags. */
const ESTARGZ = {kind: 'estargz', level: 9, chunkSize: 0, minChunkSize: 0, toc: 'inside'} as const

export interface EstargzCopy extends AsyncDisposable {
  readonly image: ImageSource
  /** Attestations of the source, which the copy does not have. */
  readonly droppedAttestations: readonly Descriptor[]
}

/** Converts the layers that are not eStargz yet; disposing the copy removes it. */
export async function makeEstargzCopy(
  source: ImageSource,
  places: Places,
  options: PrioritiesContext & {readonly platforms: PlatformSelection},
): Promise<EstargzCopy> {
  await using undo = new AsyncDisposableStack()
  const path = await makeTemporaryDirectory(options.temporaryDirectory, 'ctr-remote-ipfs-')
  undo.defer(() => rm(path, {recursive: true, force: true}))
  const place = {transport: 'oci', path, tag: 'image'} as const
  const target = undo.use(await places.target(place))
  const {droppedAttestations} = await optimizeImage(
    source,
    {image: target, beforePublish: undefined},
    {
      ...options,
      format: ESTARGZ,
      oci: true,
      priorities: {from: 'nothing'},
      reuse: true,
      memoryDirectory: undefined,
    },
  )
  const image = undo.use(await places.source(place))
  const owned = undo.move()
  return {image, droppedAttestations, [Symbol.asyncDispose]: () => owned.disposeAsync()}
}
