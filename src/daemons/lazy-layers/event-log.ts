// The log at debug tells where the time of a start went: every round trip, opening of a layer, mount and read that waited.

import type {LayerEvents, LayerObserver} from '../../lib/layer/layer-observer.ts'
import type {StartRecorder} from '../../lib/layer/start-recorder.ts'
import type {SnapshotLog} from '../../lib/snapshot/ports.ts'

/** Tells events to all of `observers`, one after the other. */
export function tellingAll(...observers: readonly LayerObserver[]): LayerObserver {
  return {
    event: (name, fields) => {
      for (const observer of observers) observer.event(name, fields)
    },
  }
}

/** Writes every event to the log, with how long after the beginning of its layer's start it was. */
export function tellingLog(
  log: Pick<SnapshotLog, 'debug'>,
  {sinceStart}: Pick<StartRecorder, 'sinceStart'>,
): LayerObserver {
  return {
    event: <N extends keyof LayerEvents>(name: N, fields: LayerEvents[N]) => {
      const durationMs = 'durationMs' in fields ? fields.durationMs : undefined
      const sinceMs = 'layer' in fields ? sinceStart(fields.layer) : undefined
      log.debug({event: name, ...fields, ...rounded({durationMs, sinceMs})}, 'lazy layer')
    },
  }
}

/** To a tenth; what is undefined is left out. */
function rounded(times: Readonly<Record<string, number | undefined>>): Record<string, number> {
  const known = Object.entries(times).flatMap(([name, ms]) => (ms === undefined ? [] : [[name, ms] as const]))
  return Object.fromEntries(known.map(([name, ms]) => [name, Math.round(ms * 10) / 10]))
}
