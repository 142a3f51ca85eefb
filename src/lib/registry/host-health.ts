// Which hosts a session has seen fail: while others can serve, they are asked last, so that a mirror that is down costs
// its timeout once and not with every read.

/** How long a host that failed is asked last. */
const PENALTY_MS = 120_000

export interface HostHealth {
  /** Notes that a host could not be reached, or broke its answers off. */
  fail(origin: string): void
  isFailing(origin: string): boolean
}

export function createHostHealth(): HostHealth {
  const untilMs = new Map<string, number>()
  return {
    fail: origin => void untilMs.set(origin, performance.now() + PENALTY_MS),
    isFailing: origin => (untilMs.get(origin) ?? 0) > performance.now(),
  }
}
