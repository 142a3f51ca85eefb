// Whether a client may read an image now: its upstream is asked, with the client's own credentials, and its word holds for a
// short time, or as long as it is away. Reads of a lazy mount are thousands, of the same few images.

import {LRUCache} from 'lru-cache'
import type {Digest} from '../oci/digest.ts'
import {MANIFEST_MEDIA_TYPES} from '../oci/media-type.ts'
import type {Repository} from '../registry/repository.ts'
import {Problem} from '../registry-server/problem.ts'
import type {Client} from './client.ts'
import {problemFromUpstream, upstreamProblem} from './upstream-answer.ts'
import type {SourceRepository} from './upstreams.ts'

/** Answers that are remembered, some hundred bytes each. */
const MAX_REMEMBERED = 20_000
/** How long an upstream's word holds while it gives no other, because it is away or broken: containers go on reading. */
const WITHOUT_UPSTREAM_MS = 3_600_000

/** Header of a request for a manifest of any kind. */
export const ACCEPT_MANIFESTS = [...MANIFEST_MEDIA_TYPES, '*/*'].join(', ')

export class AccessChecks {
  readonly #lifetimeMs: number
  /** When the upstream said so last. */
  readonly #allowedAt = new LRUCache<string, number>({max: MAX_REMEMBERED})
  readonly #asking = new Map<string, Promise<void>>()

  /** `lifetimeMs` is how long an upstream's word holds. */
  constructor(lifetimeMs: number) {
    this.#lifetimeMs = lifetimeMs
  }

  /** Notes that the upstream has just shown this manifest to the client. */
  allow(client: Client, source: SourceRepository, manifest: Digest): void {
    this.#remember(keyOf(client, source, manifest))
  }

  /** Resolves if the client may read the manifest; throws the upstream's refusal. */
  async check(
    client: Client,
    source: SourceRepository,
    manifest: Digest,
    repository: Repository,
  ): Promise<void> {
    const key = keyOf(client, source, manifest)
    if (this.#wasAllowed(key, this.#lifetimeMs)) return
    // Shared by requests that come together, so none of them can take it from the others by going away.
    const asking = this.#asking.get(key) ?? this.#ask(key, manifest, repository)
    this.#asking.set(key, asking)
    try {
      await asking
    } finally {
      if (this.#asking.get(key) === asking) this.#asking.delete(key)
    }
  }

  async #ask(key: string, manifest: Digest, repository: Repository): Promise<void> {
    try {
      const response = await repository.ask({
        method: 'HEAD',
        path: `manifests/${manifest}`,
        headers: {accept: ACCEPT_MANIFESTS},
      })
      if (response.status !== 200) throw await problemFromUpstream(response, `manifest ${manifest}`)
      await response.discard()
    } catch (error) {
      const problem = upstreamProblem(error)
      const isAway = problem instanceof Problem && problem.code === 'UNAVAILABLE'
      if (isAway && this.#wasAllowed(key, WITHOUT_UPSTREAM_MS)) return
      if (!isAway) this.#allowedAt.delete(key)
      throw problem
    }
    this.#remember(key)
  }

  #remember(key: string): void {
    this.#allowedAt.set(key, performance.now())
  }

  #wasAllowed(key: string, withinMs: number): boolean {
    const at = this.#allowedAt.get(key)
    return at !== undefined && performance.now() - at < withinMs
  }
}

function keyOf(client: Client, {name}: SourceRepository, manifest: Digest): string {
  return `${client.key} ${name}@${manifest}`
}
