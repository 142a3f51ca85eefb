// Blobs: of converted images from the store, to whoever may read the image; all others from the upstream.

import {hasCode} from '../errors/coded-error.ts'
import {raceAbort} from '../io/race-abort.ts'
import type {Digest} from '../oci/digest.ts'
import {sendBlob} from '../registry-server/blobs.ts'
import type {Exchange} from '../registry-server/exchange.ts'
import {Problem, problemOf} from '../registry-server/problem.ts'
import type {ConvertedImage} from './converted-images.ts'
import {forwardBlob} from './forward.ts'
import {askerOf, checkAccess, convertFor, type Pull, type PullThrough} from './pull-through.ts'

/** GET and HEAD. */
export async function answerBlob(
  through: PullThrough,
  pull: Pull,
  exchange: Exchange,
  digest: Digest,
): Promise<void> {
  const images = through.images.withContent(pull.source.name, digest)
  if (images.length === 0) return forwardBlob(pull, exchange, digest)
  await checkAccess(through, pull, images)
  const image =
    images.find(({isWhole}) => isWhole) ?? (await makeAgain(through, pull, exchange, images, digest))
  using _ = through.images.read(image)
  try {
    await sendBlob({store: through.images.store, blobs: through.blobs}, exchange, digest)
  } catch (error) {
    const isLost =
      error instanceof Problem ? error.code === 'BLOB_UNKNOWN' : hasCode(error, 'not-found', 'corrupt')
    if (isLost) await through.images.discard(image)
    // Nothing of what the store says is for others.
    throw problemOf(error)
  }
}

/** Whoever reads of an image that was taken away, by a lazy mount as likely as not, waits until it is here again. */
async function makeAgain(
  through: PullThrough,
  pull: Pull,
  {signal}: Exchange,
  images: readonly ConvertedImage[],
  digest: Digest,
): Promise<ConvertedImage> {
  for (const {source} of images) {
    const image = await raceAbort(convertFor(through, askerOf(through, pull), source), signal)
    if (image?.content.some(part => part.digest === digest)) return image
  }
  throw new Problem(
    'BLOB_UNKNOWN',
    `The image of ${digest} is not kept any more, and cannot be converted again now`,
  )
}
