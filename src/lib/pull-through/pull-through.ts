// What the answers of a converting registry share: who may read what, what is converted, and what has it converted.

import type {TaskScope} from '../io/task-scope.ts'
import type {Digest} from '../oci/digest.ts'
import type {Platform} from '../oci/platform.ts'
import type {Repository} from '../registry/repository.ts'
import type {KnownBlobs} from '../registry-server/known-blobs.ts'
import type {AccessChecks} from './access.ts'
import type {Client, ClientTokens} from './client.ts'
import type {Conversions} from './conversions.ts'
import type {ConvertedImage, ConvertedImages} from './converted-images.ts'
import type {Copies} from './copies.ts'
import type {Documents} from './documents.ts'
import type {PublicUrl} from './token-endpoint.ts'
import type {OpenRepository, UpstreamSessions} from './upstream-sessions.ts'
import type {SourceRepository, Upstreams} from './upstreams.ts'

export interface PullThrough {
  readonly upstreams: Upstreams
  readonly publicUrl: PublicUrl
  readonly tokens: ClientTokens
  readonly sessions: UpstreamSessions
  readonly access: AccessChecks
  readonly documents: Documents
  readonly images: ConvertedImages
  readonly blobs: KnownBlobs
  readonly conversions: Conversions
  /** Where copies go; nowhere when undefined. */
  readonly copies: Copies | undefined
  /** What registries must know that say what was pushed; they are not heard when undefined. */
  readonly webhookSecret: string | undefined
  /** Told of each pull by tag in which form it was answered. */
  readonly onPull: (form: 'converted' | 'plain') => void
  /** What goes on while nobody waits for it. */
  readonly background: TaskScope
  /** How long a pull by tag waits for a conversion, milliseconds. */
  readonly waitMs: number
  /** Platforms of an index that are converted when its tag is pulled; others when they are pulled themselves. */
  readonly platforms: 'all' | readonly Platform[]
}

/** One pull: who, what, and the upstream as that client sees it. */
export interface Pull {
  readonly client: Client
  readonly source: SourceRepository
  readonly repository: Repository
}

/** On whose behalf something is converted. */
export interface Asker {
  readonly source: SourceRepository
  /** Opens the upstream as the asker sees it. */
  readonly open: () => OpenRepository
}

/** Who pulls, as one on whose behalf something is converted. */
export function askerOf({sessions}: PullThrough, {client, source}: Pick<Pull, 'client' | 'source'>): Asker {
  return {source, open: () => sessions.open(client, source)}
}

/**
 * Has a manifest converted for somebody who may read it. Resolves to what it became; to undefined when it is not to be
 * converted, or could not be.
 */
export async function convertFor(
  {images, documents, conversions, background}: PullThrough,
  {source, open}: Asker,
  digest: Digest,
): Promise<ConvertedImage | undefined> {
  const known = images.find(source.name, digest)
  if (known) return known
  try {
    return await background.run(async () => {
      await using opened = open()
      const {descriptor, document} = await documents.read(source, digest, opened.repository)
      if (document.kind !== 'manifest') return undefined
      const {manifest} = document
      return await conversions.start({repository: source.name, descriptor, manifest, open})
    })
  } catch {
    // The manifest cannot be had, which the client is told when it asks for it.
    return undefined
  }
}

/** Throws the upstream's refusal unless the client may read one of the sources of these images. */
export async function checkAccess(
  {access}: PullThrough,
  {client, source, repository}: Pull,
  images: readonly ConvertedImage[],
): Promise<void> {
  let refusal: unknown
  for (const digest of new Set(images.map(image => image.source))) {
    try {
      return await access.check(client, source, digest, repository)
    } catch (error) {
      refusal = error
    }
  }
  throw refusal
}
