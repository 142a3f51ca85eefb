// Remembers where the time of the last starts went: gathers the events of an image's layers, and tells when they happened.

import type {LayerEvents, LayerObserver} from './layer-observer.ts'
import type {StartSpan, StartStep, StartTiming} from './start-timing.ts'

/** Starts that are remembered, the oldest go first, and what is remembered of each: a start of a large image has some hundred spans. */
const MAX_STARTS = 16
const MAX_SPANS = 400
const MAX_LAYERS = 256

/** How long after the last layer was asked for, or put into a container, what happens belongs to the start. */
const WINDOW_MS = 30_000
/** Mounts are asked for more than once for the same container. */
const SAME_CONTAINER_MS = 5_000

/** How requests are shown, by what they are for. */
const REQUESTS: Readonly<Record<LayerEvents['requested']['cause'], StartStep>> = {
  metadata: 'toc-request',
  prefetch: 'prefetch',
  'on-demand': 'read-request',
  background: 'background',
}

interface Start {
  readonly reference: string
  /** By the clock of spans; the first span may have begun earlier. */
  readonly began: number
  readonly beganAt: number
  readonly layers: Set<string>
  /** Layers that were asked for, each once in a start. */
  readonly asked: Set<string>
  /** When the window was extended last, and when a container was put together. */
  touched: number
  used: number | undefined
  readonly spans: StartSpan[]
  dropped: number
}

interface Clocks {
  /** Monotonic, milliseconds. */
  readonly now: () => number
  /** Milliseconds of the epoch. */
  readonly date: () => number
}

export class StartRecorder implements LayerObserver {
  readonly #clocks: Clocks
  /** The oldest first. */
  readonly #starts: Start[] = []

  constructor(clocks: Clocks = {now: () => performance.now(), date: () => Date.now()}) {
    this.#clocks = clocks
  }

  event<N extends keyof LayerEvents>(name: N, fields: LayerEvents[N]): void {
    this.#handlers[name]?.(fields)
  }

  /** How long ago the start began that a layer belongs to now, milliseconds; undefined when it belongs to none. */
  readonly sinceStart = (layer: string): number | undefined => {
    const start = this.#latest(({layers}) => layers.has(layer))
    return start && this.#clocks.now() - start.began
  }

  /** What is remembered, the last start first. */
  starts(): readonly StartTiming[] {
    return this.#starts.toReversed().map(start => {
      const first = Math.min(0, ...start.spans.map(({fromMs}) => fromMs))
      const spans = start.spans.map(span => ({
        ...span,
        fromMs: span.fromMs - first,
        toMs: span.toMs - first,
      }))
      const {reference, beganAt, layers, dropped} = start
      return {reference, beganAt: beganAt + first, layers: [...layers], spans, dropped}
    })
  }

  readonly #handlers: {readonly [N in keyof LayerEvents]?: (fields: LayerEvents[N]) => void} = {
    announced: ({reference, layers}) => {
      const known = this.#latest(start => start.reference === reference && start.asked.size === 0)
      this.#touch(known ?? this.#begin(reference), layers)
    },
    asked: ({layer, reference, above}) => {
      const known = this.#latest(start => start.reference === reference && !start.asked.has(layer))
      const start = known ?? this.#begin(reference)
      start.asked.add(layer)
      this.#touch(start, [...above.toReversed(), layer])
    },
    used: ({layers, reference}) => {
      const [topmost] = layers
      const now = this.#clocks.now()
      const isSame = ({used}: Start) => used === undefined || now - used < SAME_CONTAINER_MS
      const known = this.#latest(start => topmost !== undefined && start.layers.has(topmost) && isSame(start))
      const start = known ?? this.#begin(reference)
      start.used = now
      this.#touch(start, layers)
      if (topmost !== undefined) this.#add(start, {layer: topmost, step: 'use', durationMs: 0})
    },
    prepared: fields => this.#note('prepare', fields),
    attached: fields => this.#note('mount', fields),
    mounted: fields => this.#note('layer', fields),
    requested: ({cause, ...fields}) => this.#note(REQUESTS[cause], fields),
    tocParsed: fields => this.#note('toc', fields),
    read: fields => {
      if (!fields.hit) this.#note('read', fields)
    },
  }

  #note(
    step: StartStep,
    fields: {readonly layer: string; readonly durationMs: number; readonly bytes?: number},
  ): void {
    const {layer, durationMs, bytes} = fields
    const start = this.#latest(({layers}) => layers.has(layer))
    if (start) this.#add(start, {layer, step, durationMs, bytes})
  }

  #add(
    start: Start,
    span: {
      readonly layer: string
      readonly step: StartStep
      readonly durationMs: number
      readonly bytes?: number | undefined
    },
  ): void {
    const {layer, step, durationMs, bytes = 0} = span
    if (start.spans.length >= MAX_SPANS) {
      start.dropped++
      return
    }
    const toMs = this.#clocks.now() - start.began
    start.spans.push({layer, step, fromMs: toMs - durationMs, toMs, bytes})
  }

  #latest(isWanted: (start: Start) => boolean): Start | undefined {
    const now = this.#clocks.now()
    return this.#starts.findLast(start => now - start.touched <= WINDOW_MS && isWanted(start))
  }

  #begin(reference: string): Start {
    const [began, beganAt] = [this.#clocks.now(), this.#clocks.date()]
    const start: Start = {
      reference,
      began,
      beganAt,
      layers: new Set(),
      asked: new Set(),
      touched: began,
      used: undefined,
      spans: [],
      dropped: 0,
    }
    this.#starts.push(start)
    if (this.#starts.length > MAX_STARTS) this.#starts.shift()
    return start
  }

  #touch(start: Start, layers: readonly string[]): void {
    start.touched = this.#clocks.now()
    for (const layer of layers) if (start.layers.size < MAX_LAYERS) start.layers.add(layer)
  }
}
