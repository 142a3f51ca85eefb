// What the reading of lazy layers tells whoever measures it: one call per event, nothing expected back.

/** Why bytes were fetched from a registry. */
export type FetchCause = 'metadata' | 'on-demand' | 'prefetch' | 'background'

/** Events by name, with their fields. `layer` is the blob's digest; sizes are bytes. */
export interface LayerEvents {
  /** An image's layers will be asked for; topmost first. */
  readonly announced: {readonly reference: string; readonly layers: readonly string[]}
  /** A layer was asked for; `above` are those that will be asked for next, bottom first. */
  readonly asked: {readonly layer: string; readonly reference: string; readonly above: readonly string[]}
  /** A container's root file system was put together from layers that are mounted, topmost first. */
  readonly used: {readonly reference: string; readonly layers: readonly string[]}
  /** A layer's snapshot was prepared, or was found not to be lazy, from the request to the answer. */
  readonly prepared: {readonly layer: string; readonly durationMs: number}
  /** The kernel mounted a layer that is open. */
  readonly attached: {readonly layer: string; readonly durationMs: number}
  /** A layer was mounted, from the request to the kernel's answer. */
  readonly mounted: {readonly layer: string; readonly durationMs: number}
  /** A request to a registry ended; `bytes` is the body that was received. */
  readonly requested: {
    readonly layer: string
    readonly cause: FetchCause
    readonly durationMs: number
    readonly bytes: number
    readonly failed: boolean
  }
  /** The footer, or the TOC behind it, was fetched. */
  readonly metadataFetched: {
    readonly layer: string
    readonly part: 'footer' | 'toc'
    readonly durationMs: number
  }
  /** A TOC was parsed and became a tree. */
  readonly tocParsed: {readonly layer: string; readonly durationMs: number}
  /** A reader was served; `hit` when nothing had to be fetched, else `durationMs` includes the fetch. */
  readonly read: {
    readonly layer: string
    readonly durationMs: number
    readonly bytes: number
    readonly hit: boolean
  }
  /** The prefetch of a layer ended, whether complete or given up; `bytes` are compressed. */
  readonly prefetched: {readonly layer: string; readonly durationMs: number; readonly bytes: number}
  /** The rest of a layer was fetched in the background. */
  readonly filled: {readonly layer: string; readonly durationMs: number}
}

/** Told of events as they happen; must be cheap and must not throw. */
export interface LayerObserver {
  event<N extends keyof LayerEvents>(name: N, fields: LayerEvents[N]): void
}

/** Listens to nothing. */
export const SILENT_OBSERVER: LayerObserver = {event: () => {}}
