// Manifests by tag, which are converted where that is possible, and by digest, which are what they are.

import {setTimeout as sleep} from 'node:timers/promises'
import {hasCode} from '../errors/coded-error.ts'
import {raceAbort} from '../io/race-abort.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import type {Exchange} from '../registry-server/exchange.ts'
import {replyManifest} from '../registry-server/manifests.ts'
import type {ManifestReference} from '../registry-server/route.ts'
import {acceptsOci} from './accept.ts'
import {ACCEPT_MANIFESTS} from './access.ts'
import {composeIndex} from './composed-index.ts'
import {convertTag} from './convert-tag.ts'
import type {ConvertedImage} from './converted-images.ts'
import type {FoundDocument} from './documents.ts'
import {forward} from './forward.ts'
import {askerOf, checkAccess, convertFor, type Pull, type PullThrough} from './pull-through.ts'
import {problemFromUpstream} from './upstream-answer.ts'

/** GET and HEAD. */
export async function answerManifest(
  through: PullThrough,
  pull: Pull,
  exchange: Exchange,
  reference: ManifestReference,
): Promise<void> {
  return 'tag' in reference
    ? answerTag(through, pull, exchange, reference.tag)
    : answerDigest(through, pull, exchange, reference.digest)
}

async function answerTag(through: PullThrough, pull: Pull, exchange: Exchange, tag: string): Promise<void> {
  const digest = await resolveTag(pull, tag, exchange)
  through.access.allow(pull.client, pull.source, digest)
  const found = await readDocument(through, pull, digest)
  if (!found) return forward(pull, exchange, `manifests/${tag}`)
  if (acceptsOci(exchange.request.headers.accept)) {
    const converted = await convertedForm(through, pull, found, tag, exchange)
    if (converted && (await replyConverted(through, exchange, converted))) return through.onPull('converted')
  }
  replyManifest(exchange, found)
  through.onPull('plain')
}

/** The digest that a tag has now. HEAD, because registries that limit pulls count GETs. */
async function resolveTag({repository}: Pull, tag: string, {signal}: CallOptions): Promise<Digest> {
  const path = `manifests/${tag}`
  const response = await repository.ask({method: 'HEAD', path, headers: {accept: ACCEPT_MANIFESTS}}, {signal})
  const digest = response.header('docker-content-digest')
  const isWithoutHead = response.status === 405 || response.status === 501
  if (response.status !== 200 && !isWithoutHead) throw await problemFromUpstream(response, `tag ${tag}`)
  await response.discard()
  return isDigest(digest) && !isWithoutHead ? digest : (await repository.resolve(tag, {signal})).digest
}

/** Undefined for what is no document of an image, which goes to the client as it is. */
async function readDocument(
  {documents}: PullThrough,
  {source, repository}: Pull,
  digest: Digest,
): Promise<FoundDocument | undefined> {
  try {
    return await documents.read(source, digest, repository)
  } catch (error) {
    if (hasCode(error, 'unsupported')) return undefined
    throw error
  }
}

/** What the document of a tag is to be replaced with, as far as it is converted, or will be while the client waits. */
async function convertedForm(
  through: PullThrough,
  pull: Pull,
  found: FoundDocument,
  tag: string,
  {signal}: CallOptions,
): Promise<ConvertedImage | undefined> {
  const {images, waitMs} = through
  const {name} = pull.source
  const {descriptor, document} = found
  const converting = convertTag(through, askerOf(through, pull), found, tag)
  if (waitMs > 0) await waitFor(converting, waitMs, signal)
  if (document.kind === 'manifest') return images.find(name, descriptor.digest)
  const composed = composeIndex(document.index, digest => images.find(name, digest)?.descriptor)
  if (!composed) return undefined
  try {
    return await images.addIndex(name, descriptor.digest, composed)
  } catch {
    // A disk that is full, say: the index as it is serves too.
    return undefined
  }
}

/** Waits until something is done, the time is over, or the client has gone. */
async function waitFor(
  work: Promise<unknown>,
  waitMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const over = new AbortController()
  const timer = sleep(waitMs, undefined, {signal: over.signal}).catch(() => {})
  try {
    await raceAbort(Promise.race([work, timer]), signal)
  } finally {
    over.abort()
  }
}

async function answerDigest(
  through: PullThrough,
  pull: Pull,
  exchange: Exchange,
  digest: Digest,
): Promise<void> {
  const ours = through.images
    .withContent(pull.source.name, digest)
    .filter(({descriptor}) => descriptor.digest === digest)
  const [image] = ours
  if (image) {
    await checkAccess(through, pull, ours)
    // Its layers will be asked for next.
    if (!image.isWhole) void convertFor(through, askerOf(through, pull), image.source)
    if (await replyConverted(through, exchange, image)) return
  }
  await through.access.check(pull.client, pull.source, digest, pull.repository)
  const found = await readDocument(through, pull, digest)
  if (!found) return forward(pull, exchange, `manifests/${digest}`)
  replyManifest(exchange, found)
  // Whoever takes one of an index's platforms will want it again; the next pull by tag finds it converted.
  if (exchange.method === 'GET') void convertFor(through, askerOf(through, pull), digest)
}

/** False when the store has lost it. */
async function replyConverted(
  {images}: PullThrough,
  exchange: Exchange,
  image: ConvertedImage,
): Promise<boolean> {
  using _ = images.read(image)
  let bytes: Uint8Array
  try {
    bytes = await images.readDocument(image, exchange)
  } catch (error) {
    exchange.signal.throwIfAborted()
    if (hasCode(error, 'not-found', 'corrupt')) await images.discard(image)
    return false
  }
  replyManifest(exchange, {descriptor: image.descriptor, bytes})
  return true
}
