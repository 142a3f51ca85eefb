// How a layer is doing, for `lazy status` and for the metrics.

import type {LayerMounter} from '../snapshot/ports.ts'

/** One layer at one mountpoint. Sizes are bytes. */
export interface LazyLayerStatus {
  readonly mountpoint: string
  readonly reference: string
  readonly digest: string
  readonly tocDigest?: string
  /** False for a layer that was asked for and could not be mounted lazily. */
  readonly lazy: boolean
  /** Why it is not lazy, or the last error that made it so. */
  readonly reason?: string
  readonly format?: string
  /** `plain`: complete, and mounted without this daemon being involved. */
  readonly backend?: 'erofs' | 'fuse' | 'plain'
  /** The blob: its compressed size, and how much of it was fetched. */
  readonly size: number
  readonly fetched: number
  /** The layer's file data, uncompressed, and how much of it is cached. */
  readonly deviceSize: number
  readonly present: number
  readonly prefetchSize: number
  /** Requests to the registry. */
  readonly requests: number
  /** Reads that needed nothing from it; those that the kernel answers from its own cache are not seen. */
  readonly hits?: number
  /** Of what was prefetched since the daemon's start: uncompressed bytes that nobody has read yet. */
  readonly prefetchedUnread?: number
  readonly errors: number
  readonly lastError?: string
}

/** A mounter that the daemon can ask and end. */
export interface LazyLayerMounter extends LayerMounter {
  status(): readonly LazyLayerStatus[]
  /**
   * Says that the layer that `labels` describe will be asked for soon, and its image's others: they are opened. Throws as
   * `parseLabels`; what comes of it hears who asks.
   */
  announce(labels: Readonly<Record<string, string>>): void
  /** After a restart, once every layer is mounted again: goes on with what was asked meanwhile. */
  resume(): void
  /** `leave`: mounts live on, for the next daemon to take over; `unmount`: nothing stays mounted. */
  close(how: 'leave' | 'unmount'): Promise<void>
}
