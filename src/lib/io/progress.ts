// What long work tells whoever watches: one event type for copying, converting, profiling and verifying.

/** A step of work on one item. Events of one `id` replace each other; a sink may drop all but the newest. */
export interface ProgressEvent {
  /** Stable within one run: a blob's digest, or a name such as `profile`. */
  readonly id: string
  /** For people: `layer 2/4 sha256:1f3e…`, `config`, `workload`. */
  readonly label: string
  readonly phase: 'waiting' | 'running' | 'done' | 'skipped'
  /** Bytes of the item that have been worked on, and the total where it is known. */
  readonly doneBytes?: number
  readonly totalBytes?: number
  /** For people: why it was skipped, or what came of it. */
  readonly note?: string
}

export type ProgressSink = (event: ProgressEvent) => void
