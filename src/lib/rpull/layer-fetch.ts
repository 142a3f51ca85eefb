// Fetches the layers that a snapshotter does not mount, several at once: those that will be needed before they are.

import pLimit from 'p-limit'
import {copyBlob} from '../copy/copy-image.ts'
import type {ProgressSink} from '../io/progress.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'

/** Layers fetched at once; containerd's default is 3, and more gains nothing once the link is full. */
const PARALLEL_LAYERS = 4

export interface LayerFetchOptions extends CallOptions {
  /** Bottom first. */
  readonly layers: readonly Descriptor[]
  /** Whether the snapshotter may still mount a layer. */
  readonly mayBeLazy: (layer: Descriptor) => boolean
  readonly onProgress?: ProgressSink | undefined
}

/** The fetches of one image; disposing it stops those that nobody has waited for, and waits until they have stopped. */
export interface LayerFetch extends AsyncDisposable {
  /**
   * Resolves when the layer at this place is in the store. The layers above it are fetched too from now on: those that
   * cannot be mounted, and once a layer that could was not, all of them.
   */
  need(index: number): Promise<void>
  /** The layer at this place is not needed after all. */
  drop(index: number): void
}

interface Fetch {
  readonly done: Promise<void>
  readonly abort: AbortController
}

/** Fetches layers from one content store into another; nothing is fetched before a layer is needed. */
export function createLayerFetch(
  from: ContentStore,
  to: ContentStore,
  options: LayerFetchOptions,
): LayerFetch {
  const {layers} = options
  const limit = pLimit(PARALLEL_LAYERS)
  const fetches = new Map<number, Fetch>()

  function start(index: number): Fetch {
    const known = fetches.get(index)
    if (known) return known
    const abort = new AbortController()
    const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal
    const done = limit(() => fetchLayer(from, to, index, {...options, signal}))
    // Whoever needs the layer sees the failure.
    done.catch(() => undefined)
    const fetch = {done, abort}
    fetches.set(index, fetch)
    return fetch
  }

  return {
    async need(index) {
      const {done} = start(index)
      const disappointing = options.mayBeLazy(layers[index]!)
      for (const [above, layer] of layers.entries()) {
        if (above > index && (disappointing || !options.mayBeLazy(layer))) start(above)
      }
      await done
    },
    drop: index => fetches.get(index)?.abort.abort(),
    async [Symbol.asyncDispose]() {
      for (const {abort} of fetches.values()) abort.abort()
      await Promise.allSettled([...fetches.values()].map(({done}) => done))
    },
  }
}

async function fetchLayer(
  from: ContentStore,
  to: ContentStore,
  index: number,
  {layers, onProgress, signal}: LayerFetchOptions,
): Promise<void> {
  signal?.throwIfAborted()
  const layer = layers[index]!
  const report = (phase: 'running' | 'done' | 'skipped', doneBytes?: number) =>
    onProgress?.({
      id: layer.digest,
      label: `layer ${index + 1}/${layers.length} ${layer.digest.slice(0, 19)}`,
      phase,
      totalBytes: layer.size,
      ...(doneBytes === undefined ? {} : {doneBytes}),
      ...(phase === 'skipped' ? {note: 'already there'} : {}),
    })
  const onBytes = (doneBytes: number) => report('running', doneBytes)
  const written = await copyBlob(from, to, layer, {signal, onBytes})
  report(written ? 'done' : 'skipped', written ? layer.size : undefined)
}
