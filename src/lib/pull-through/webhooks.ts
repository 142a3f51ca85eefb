// "This was pushed", as registries say it: Harbor's webhooks, of both payload formats, and CNCF Distribution's notifications.

import {timingSafeEqual} from 'node:crypto'
import {digestOf} from '../blob/sha256.ts'
import {isRecord} from '../oci/descriptor.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import {type Exchange, readBody, reply} from '../registry-server/exchange.ts'
import {Problem} from '../registry-server/problem.ts'
import {isRepository, isTag} from '../registry-server/route.ts'
import {convertTag} from './convert-tag.ts'
import type {Asker, PullThrough} from './pull-through.ts'
import {findSource} from './upstreams.ts'

/** The path that registries post to. */
export const WEBHOOK_PATH = '/webhook'

/** An image that was pushed. */
export interface PushedImage {
  /** The registry, as whoever pushed calls it. */
  readonly host: string | undefined
  readonly repository: string
  readonly tag: string | undefined
  readonly digest: Digest
}

/** A notification has a few KiB for each image; Harbor and Distribution send few together. */
const MAX_BODY = 1024 * 1024
/** Images of one notification that are looked at. */
const MAX_IMAGES = 100

/** Starts the conversions of what was pushed. Throws a `Problem` for who does not know the secret, and for what is no notification. */
export async function answerWebhook(through: PullThrough, exchange: Exchange): Promise<void> {
  checkSecret(through.webhookSecret, exchange)
  if (exchange.method !== 'POST') {
    throw new Problem('UNSUPPORTED', `Method ${exchange.method} does not apply`, {allow: 'POST'})
  }
  const pushed = parseNotification(await readBody(exchange, MAX_BODY)).slice(0, MAX_IMAGES)
  for (const image of pushed) {
    // What cannot be had, or is no image, is no business of who notifies us.
    void through.background.run(() => convertPushed(through, image)).catch(() => {})
  }
  reply(exchange, 202, {'content-type': 'application/json'}, JSON.stringify({images: pushed.length}))
}

async function convertPushed(
  through: PullThrough,
  {host, repository, tag, digest}: PushedImage,
): Promise<void> {
  const {upstreams, sessions, documents} = through
  const isNamed = upstreams.named.some(({domain}) => domain === host)
  // A registry may be called otherwise by who pushes to it: inside of its cluster, say.
  const source = findSource(
    {...upstreams, any: false},
    repository,
    isNamed ? host : upstreams.named[0]?.domain,
  )
  const asker: Asker = {source, open: () => sessions.openOwn(source)}
  await using opened = asker.open()
  const found = await documents.read(source, digest, opened.repository)
  await convertTag(through, asker, found, tag)
}

/** By the Authorization header, alone or after "Bearer": Harbor sends what it is given, Distribution too. */
function checkSecret(secret: string | undefined, {request}: Exchange): void {
  if (secret === undefined) throw new Problem('NAME_UNKNOWN', 'There is no such path in the distribution API')
  const given = (request.headers.authorization ?? '').replace(/^Bearer +/i, '')
  // Digests, because only equal lengths can be compared in constant time.
  const [shown, expected] = [given, secret].map(text => Buffer.from(digestOf(text)))
  if (!timingSafeEqual(shown!, expected!))
    throw new Problem('UNAUTHORIZED', 'The secret of the webhook is needed')
}

/** The images that a notification says were pushed; other events of it are none. Throws a `Problem` for anything else. */
export function parseNotification(bytes: Uint8Array): readonly PushedImage[] {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    value = undefined
  }
  if (isRecord(value) && Array.isArray(value.events)) return value.events.flatMap(distributionEvent)
  if (isRecord(value) && typeof value.type === 'string')
    return harborEvent(value.type, value.event_data ?? value.data)
  throw new Problem('MANIFEST_INVALID', 'The body is no notification of Harbor or CNCF Distribution')
}

function distributionEvent(event: unknown): readonly PushedImage[] {
  if (!isRecord(event) || event.action !== 'push' || !isRecord(event.target)) return []
  const {repository, tag, digest, mediaType} = event.target
  // Each blob is an event too.
  const isBlob = typeof mediaType === 'string' && !/manifest|index/.test(mediaType)
  const host = isRecord(event.request) ? event.request.host : undefined
  return isBlob ? [] : pushedImage(host, repository, tag, digest)
}

function harborEvent(type: string, data: unknown): readonly PushedImage[] {
  const isPush = type === 'PUSH_ARTIFACT' || type === 'harbor.artifact.pushed'
  if (!isPush || !isRecord(data) || !Array.isArray(data.resources)) return []
  const repository = isRecord(data.repository) ? data.repository.repo_full_name : undefined
  return data.resources.flatMap(resource => {
    if (!isRecord(resource)) return []
    const url = typeof resource.resource_url === 'string' ? resource.resource_url : ''
    return pushedImage(url.split('/')[0], repository, resource.tag, resource.digest)
  })
}

function pushedImage(
  host: unknown,
  repository: unknown,
  tag: unknown,
  digest: unknown,
): readonly PushedImage[] {
  if (typeof repository !== 'string' || !isRepository(repository) || !isDigest(digest)) return []
  return [
    {
      host: typeof host === 'string' && host !== '' ? host : undefined,
      repository,
      // Harbor has the digest there for what was pushed without a tag.
      tag: typeof tag === 'string' && isTag(tag) ? tag : undefined,
      digest,
    },
  ]
}
