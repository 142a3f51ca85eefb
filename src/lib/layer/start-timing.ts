// Where the time of a container's start went, as whoever asks for it is told.

/** What takes time in a start, in the order in which it happens. */
export const START_STEPS = [
  // A layer's snapshot, from containerd's request to the answer.
  'prepare',
  // Round trips to the registry for what opens a layer: the end of its blob.
  'toc-request',
  // From the TOC to what the kernel mounts.
  'toc',
  'mount',
  // From the request for a layer to its being mounted; what `prepare` has besides are the snapshotter's own records.
  'layer',
  // A container's root file system was put together.
  'use',
  // Requests for what the layer says will be read.
  'prefetch',
  // Reads that waited, and the requests for what was missing.
  'read',
  'read-request',
  // Requests for the rest.
  'background',
] as const
export type StartStep = (typeof START_STEPS)[number]

/** Something that took time; milliseconds since the start began. */
export interface StartSpan {
  /** The digest of the layer's blob. */
  readonly layer: string
  readonly step: StartStep
  readonly fromMs: number
  readonly toMs: number
  /** Of a request's body, or what was read. */
  readonly bytes: number
}

/** The start of one image's container: from the first request for one of its layers, or for a container on them. */
export interface StartTiming {
  /** The image, as whoever asked named it. */
  readonly reference: string
  /** When it began, milliseconds of the epoch. */
  readonly beganAt: number
  /** The digests of its layers' blobs, as far as they are known. */
  readonly layers: readonly string[]
  /** In the order in which they ended. */
  readonly spans: readonly StartSpan[]
  /** Spans that were left out, because there were too many. */
  readonly dropped: number
}

/** What all spans of one step have in common. */
export interface StepTotals {
  readonly step: StartStep
  readonly fromMs: number
  readonly toMs: number
  /** The time in which at least one of them went on. */
  readonly coveredMs: number
  readonly count: number
  readonly bytes: number
}

/** Sums spans up by their step; steps that did not happen are left out. */
export function totalsOf(spans: readonly StartSpan[]): readonly StepTotals[] {
  return START_STEPS.flatMap(step => {
    const own = spans.filter(span => span.step === step).sort((a, b) => a.fromMs - b.fromMs)
    if (own.length === 0) return []
    let [coveredMs, end] = [0, -Infinity]
    for (const {fromMs, toMs} of own) {
      coveredMs += Math.max(0, toMs - Math.max(fromMs, end))
      end = Math.max(end, toMs)
    }
    const bytes = own.reduce((sum, span) => sum + span.bytes, 0)
    return [{step, fromMs: own[0]!.fromMs, toMs: end, coveredMs, count: own.length, bytes}]
  })
}

/** The last start of an image: by its name, or because its topmost layer was in it under another image's. */
export function lastStartOf(
  starts: readonly StartTiming[],
  reference: string,
  topmost: string | undefined,
): StartTiming | undefined {
  return starts
    .filter(start => start.reference === reference || (topmost !== undefined && start.layers[0] === topmost))
    .reduce<StartTiming | undefined>(
      (last, start) => (last && last.beganAt > start.beganAt ? last : start),
      undefined,
    )
}
