// Stops what runs between any two of its awaits: a run is repeated, and each time something else has just happened when it
// is aborted, closed, or whatever is to be tried.

/** How many microtasks after a crossing a fault comes, at most: the awaits between two calls of ports are fewer. */
const MAX_TICKS = 12
const ALL_TICKS = Array.from({length: MAX_TICKS + 1}, (_, tick) => tick)

/** One run. What its ports do goes through `cross`. */
export class Stage {
  /** How often ports have been called, or have answered. */
  crossings = 0
  /** What the fault has come to; undefined until it is there. */
  fault: Promise<unknown> | undefined
  readonly #at: number
  readonly #ticks: number
  #happen: (() => Promise<unknown>) | undefined

  constructor(at: number, ticks: number) {
    this.#at = at
    this.#ticks = ticks
  }

  /** What is to happen. */
  on(happen: () => Promise<unknown>): void {
    this.#happen = happen
  }

  /** A port's call: may be where the fault comes, before it or after it. */
  async cross<T>(call: () => Promise<T>): Promise<T> {
    this.#count()
    try {
      return await call()
    } finally {
      this.#count()
    }
  }

  #count(): void {
    if (this.crossings++ !== this.#at) return
    let waited = Promise.resolve()
    for (let tick = 0; tick < this.#ticks; tick++) waited = waited.then(() => {})
    this.fault = this.#ticks === 0 ? this.#happen!() : waited.then(() => this.#happen!())
    // Whoever runs the stage looks at it.
    this.fault.catch(() => {})
  }
}

/** Every port that `stage` is asked about, and that has methods only: each of their calls is a crossing. */
export function watched<T extends object>(stage: Stage, port: T, methods: readonly (keyof T & string)[]): T {
  return new Proxy(port, {
    get: (target, name) => {
      const value = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      const bound = value.bind(target)
      if (!methods.includes(name as keyof T & string)) return bound
      return (...args: unknown[]) => stage.cross(async () => bound(...args))
    },
  })
}

/**
 * Runs `run` once for every point between two awaits, until there is none that it has not been stopped at. It calls
 * `stage.on`, awaits all that it starts, and checks what must be true. Resolves to the number of runs with a fault. What
 * never ends by itself is stopped at the first `crossings` only; what takes long, after the given `ticks` only.
 */
export async function atEveryPoint(
  run: (stage: Stage) => Promise<void>,
  {
    crossings = Number.POSITIVE_INFINITY,
    ticks = ALL_TICKS,
  }: {crossings?: number; ticks?: readonly number[]} = {},
): Promise<number> {
  let runs = 0
  const unheard = await unhandledRejections(async () => {
    for (let at = 0; at < crossings; at++) {
      for (const tick of ticks) {
        const stage = new Stage(at, tick)
        await run(stage)
        if (!stage.fault) return
        await stage.fault
        runs++
      }
    }
  })
  if (unheard.length > 0) throw new AggregateError(unheard, `${unheard.length} failures were heard by nobody`)
  return runs
}

/** The failures that nobody has heard of while `work` ran, and right after it. */
export async function unhandledRejections(work: () => Promise<void>): Promise<unknown[]> {
  const unheard: unknown[] = []
  const listen = (reason: unknown) => void unheard.push(reason)
  const others = process.listeners('unhandledRejection')
  process.removeAllListeners('unhandledRejection')
  process.on('unhandledRejection', listen)
  try {
    await work()
    // Node tells of them when the microtasks have been done.
    await new Promise(setImmediate)
    await new Promise(setImmediate)
  } finally {
    process.off('unhandledRejection', listen)
    for (const other of others) process.on('unhandledRejection', other)
  }
  return unheard
}
