// Starts that are likely soon, because an image is being pulled: what they will read is fetched while the rest of it is mounted.

import {describeError, hasCode} from '../errors/coded-error.ts'
import {TaskScope} from '../io/task-scope.ts'
import type {SnapshotLog} from '../snapshot/ports.ts'
import {type Labels, type LayerRequest, parseLabels, requestForNeighbour} from './layer-request.ts'
import type {SharedLayer} from './shared-layer.ts'
import type {LayerUse, SharedLayers} from './shared-layers.ts'
import {fetchStartFiles} from './start-files.ts'

export interface StartsAheadOptions {
  readonly layers: SharedLayers
  /** Never fails. */
  readonly release: (use: LayerUse) => Promise<void>
  /** Whether anything may be fetched before it is read, and layers have images to find it in. */
  readonly isWanted: boolean
  readonly log: SnapshotLog
}

/** Every layer of an image is announced, and one start expected; after this long another may be, milliseconds. */
const SAME_PULL_MS = 60_000

export class StartsAhead {
  readonly #options: StartsAheadOptions
  readonly #expected = new Set<string>()
  readonly #scope = new TaskScope()

  constructor(options: StartsAheadOptions) {
    this.#options = options
  }

  /** A layer of the image that `labels` describe is going to be mounted over `below`, topmost first. */
  expect(labels: Labels, below: readonly SharedLayer[]): void {
    const request = requestIn(labels)
    // A plan tells better what a start will read, and the others' labels bring theirs.
    if (!this.#options.isWanted || !request || request.prefetchPlan !== undefined) return
    const {neighbours, digest, reference} = request
    const above = neighbours.slice(neighbours.findIndex(neighbour => neighbour.digest === digest) + 1)
    // Without the digests of their TOCs, as a kubelet asks, the others cannot be opened yet: then the last one tells.
    if (above.some(({tocDigest}) => tocDigest === undefined)) return
    const image = `${reference} ${above.at(-1)?.digest ?? digest}`
    if (this.#expected.has(image)) return
    this.#expected.add(image)
    setTimeout(() => this.#expected.delete(image), SAME_PULL_MS).unref()
    const missing = above.map(neighbour => requestForNeighbour(request, neighbour))
    const prepare = () => this.#prepare([...missing.reverse(), request], below, request)
    // After the end there is nothing to prepare.
    this.#scope.run(prepare).catch(() => {})
  }

  /** Ends all; when it resolves, nothing is opened or read any more. */
  async close(reason: unknown): Promise<void> {
    await this.#scope.close(reason)
  }

  /** Never fails: a start that could not be prepared is slower, and whoever mounts the layers hears what is wrong. */
  async #prepare(
    requests: readonly LayerRequest[],
    below: readonly SharedLayer[],
    {command = {words: [], path: ''}, reference}: LayerRequest,
  ): Promise<void> {
    const {layers, release, log} = this.#options
    const {signal} = this.#scope
    const uses: LayerUse[] = []
    try {
      const opened = await Promise.allSettled(requests.map(request => layers.acquire(request, {signal})))
      for (const result of opened) if (result.status === 'fulfilled') uses.push(result.value)
      for (const result of opened) if (result.status === 'rejected') throw result.reason
      const all = [...uses.map(({layer}) => layer), ...below]
      // One that was optimized says what is read first, and that is fetched.
      if (!all.some(layer => layer.isOptimized)) await fetchStartFiles({layers: all, command, signal})
    } catch (error) {
      log.debug({reference, error: describeError(error)}, 'cannot fetch what a start will read')
    } finally {
      await Promise.all(uses.map(release))
    }
  }
}

function requestIn(labels: Labels): LayerRequest | undefined {
  try {
    return parseLabels(labels)
  } catch (error) {
    if (hasCode(error, 'unsupported', 'invalid-argument')) return undefined
    throw error
  }
}
