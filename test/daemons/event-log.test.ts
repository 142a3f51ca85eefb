import {describe, expect, it} from 'vitest'
import {tellingAll, tellingLog} from '../../src/daemons/lazy-layers/event-log.ts'

describe('events of lazy layers', () => {
  it('are told to the log at debug, with when they were, and to whoever measures them', () => {
    const [logged, measured]: [unknown[], unknown[]] = [[], []]
    const log = {debug: (fields: unknown, message: string) => void logged.push([fields, message])}
    const sinceStart = (layer: string) => (layer === 'sha256:a' ? 30.06 : undefined)
    const observer = tellingAll(
      {event: (...event) => void measured.push(event)},
      tellingLog(log, {sinceStart}),
    )
    observer.event('mounted', {layer: 'sha256:a', durationMs: 12.3456})
    observer.event('mounted', {layer: 'sha256:b', durationMs: 1})
    observer.event('used', {reference: 'app', layers: ['sha256:a']})
    expect(logged).toEqual([
      [{event: 'mounted', layer: 'sha256:a', durationMs: 12.3, sinceMs: 30.1}, 'lazy layer'],
      [{event: 'mounted', layer: 'sha256:b', durationMs: 1}, 'lazy layer'],
      [{event: 'used', reference: 'app', layers: ['sha256:a']}, 'lazy layer'],
    ])
    expect(measured).toHaveLength(3)
    expect(measured[0]).toEqual(['mounted', {layer: 'sha256:a', durationMs: 12.3456}])
  })
})
