// A log that tells once what happens again and again, and later how often: programs read in a loop what cannot be read.

import type {FuseLog} from '../../lib/fuse/fuse-log.ts'

/** How long the same is only counted, milliseconds. */
const WINDOW_MS = 60_000
/** Things that are counted at a time; the oldest go first. */
const MAX_COUNTED = 1_000

interface Counted {
  readonly since: number
  repeated: number
}

/** `log`, whose warnings about one device are the same thing as long as they have the same message. */
export function countingRepetitions(log: FuseLog, now = () => performance.now()): FuseLog {
  const counted = new Map<string, Counted>()

  const warn: FuseLog['warn'] = (fields, message) => {
    const key = `${message} ${fields.device ?? JSON.stringify(fields)}`
    const known = counted.get(key)
    if (known && now() - known.since < WINDOW_MS) {
      known.repeated++
      return
    }
    counted.delete(key)
    counted.set(key, {since: now(), repeated: 0})
    const [oldest] = counted.keys()
    if (counted.size > MAX_COUNTED && oldest !== undefined) counted.delete(oldest)
    const repeated = known?.repeated ?? 0
    log.warn(repeated > 0 ? {...fields, repeated} : fields, message)
  }

  return {
    info: (fields, message) => log.info(fields, message),
    debug: (fields, message) => log.debug(fields, message),
    warn,
  }
}
