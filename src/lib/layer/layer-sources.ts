// Where a layer's bytes come from: every image that is known to have it. Whichever serves is asked; that one is gone, or has
// forgotten who we are, is no reason for the readers of another to fail.

import {CodedError, hasCode, messageOf} from '../errors/coded-error.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {FailureMemory} from './failure-memory.ts'
import {placeOfImage} from './image-place.ts'
import type {LayerRequest} from './layer-request.ts'
import type {Outage} from './outage.ts'
import type {LayerOrigin} from './ports.ts'

/** Between attempts at what was refused, milliseconds. */
const REFUSED = {minMs: 1_000, maxMs: 60_000}
/** Images that a layer is asked for in; a base image may be that of a thousand. */
const MAX_SOURCES = 8

/** A blob that is the layer. */
interface Source {
  readonly request: LayerRequest
  readonly host: string
  readonly repository: string
  readonly blob: BlobSource
}

export interface LayerSourcesOptions {
  readonly origin: Pick<LayerOrigin, 'blob'>
  readonly failures: FailureMemory
  /** For messages. */
  readonly where: string
}

export class LayerSources implements BlobSource, Outage {
  readonly size: number
  readonly #options: LayerSourcesOptions
  /** By who knows of them; several may know the same. */
  readonly #sources = new Map<unknown, Source>()
  #served: string | undefined

  /** `size` of the blob that the layer's map was made from. */
  constructor(size: number, options: LayerSourcesOptions) {
    this.size = size
    this.#options = options
  }

  /** Adds the blob of `request`, which has `size` bytes, as long as `owner` knows of it. */
  add(owner: unknown, request: LayerRequest, size: number): void {
    const {host, repository} = placeOfImage(request.reference)
    // What is said last of an owner counts, and a layer is asked for first where it was mounted for.
    const blob = this.#options.origin.blob(request, size)
    this.#sources.set(owner, {request, host, repository, blob})
  }

  remove(owner: unknown): void {
    this.#sources.delete(owner)
  }

  /** The images, as their users named them. */
  references(): string[] {
    return [...this.#sources.values()].map(({request}) => request.reference)
  }

  async read(offset: number, length: number, call: CallOptions = {}): Promise<Uint8Array> {
    const {failures, where} = this.#options
    const problems: {readonly source: Source; readonly error: unknown}[] = []
    for (const source of this.#inOrder()) {
      const known = placesOf(source)
        .map(place => failures.recall(place))
        .find(error => error !== undefined)
      const started = failures.now()
      try {
        if (known !== undefined) throw known
        const bytes = await source.blob.read(offset, length, call)
        this.#noteServed(source)
        return bytes
      } catch (error) {
        call.signal?.throwIfAborted()
        if (known === undefined) failures.failed(placeOf(source, error), error, {...REFUSED, started})
        problems.push({source, error})
      }
    }
    if (problems.length === 0)
      throw new CodedError('not-found', `Cannot read ${where}: no image has it any more`)
    // One that can be waited for first: then there is hope.
    const first = problems.find(({error}) => hasCode(error, 'unavailable')) ?? problems[0]!
    throw withOthers(
      first.error,
      problems.filter(problem => problem !== first),
    )
  }

  mayWait(): boolean {
    const answers = this.#outages().map(outage => {
      try {
        return {mayWait: outage.mayWait()}
      } catch (error) {
        return {error}
      }
    })
    const usable = answers.filter(answer => 'mayWait' in answer)
    if (usable.length === 0 && answers[0] && 'error' in answers[0]) throw answers[0].error
    return usable.some(({mayWait}) => mayWait)
  }

  begin(error: unknown): void {
    for (const outage of this.#outages()) outage.begin(error)
  }

  /** Nothing more to do: whoever served is known to. */
  end(): void {}

  #outages(): Outage[] {
    const hosts = new Set(this.#inOrder().map(({host}) => host))
    return [...hosts].map(host => this.#options.failures.outageOf(host))
  }

  #noteServed(source: Source): void {
    const {failures} = this.#options
    this.#served = keyOf(source)
    failures.outageOf(source.host).end()
    for (const place of [...placesOf(source), source.host])
      if (failures.isFailing(place)) failures.succeeded(place)
  }

  /** Each once: who served last, then those whose hosts have not failed. */
  #inOrder(): readonly Source[] {
    const {failures} = this.#options
    const sources = [...new Map([...this.#sources.values()].map(source => [keyOf(source), source])).values()]
    const rank = (source: Source) =>
      keyOf(source) === this.#served ? 0 : failures.isFailing(source.host) ? 2 : 1
    return sources.toSorted((a, b) => rank(a) - rank(b)).slice(0, MAX_SOURCES)
  }
}

function keyOf({repository, request}: Source): string {
  return `${repository}@${request.digest}`
}

/** Which places must not have failed just now: the repository may refuse us, or the blob may be gone. */
function placesOf(source: Source): string[] {
  return [source.repository, keyOf(source)]
}

function placeOf(source: Source, error: unknown): string {
  // A host that cannot be reached is asked after others, and patiently: it may be back.
  if (hasCode(error, 'unavailable')) return source.host
  return hasCode(error, 'unauthenticated', 'permission-denied') ? source.repository : keyOf(source)
}

function withOthers(
  error: unknown,
  others: readonly {readonly source: Source; readonly error: unknown}[],
): unknown {
  if (others.length === 0 || !(error instanceof CodedError)) return error
  const told = others.map(({source, error: other}) => `${source.repository}: ${messageOf(other)}`)
  return new CodedError(error.code, `${error.message} (other images with it: ${told.join('; ')})`, {
    cause: error,
  })
}
