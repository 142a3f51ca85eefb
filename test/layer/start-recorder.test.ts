import {describe, expect, it} from 'vitest'
import {StartRecorder} from '../../src/lib/layer/start-recorder.ts'
import {lastStartOf, totalsOf} from '../../src/lib/layer/start-timing.ts'

/** A recorder whose clock is moved by hand. */
function recorder() {
  const clock = {now: 1_000}
  return {clock, starts: new StartRecorder({now: () => clock.now, date: () => 1_700_000_000_000 + clock.now})}
}

const reference = 'example.com/app:1'

describe('the recorder of starts', () => {
  it('tells when each step of a pull began and ended, since the first request', () => {
    const {clock, starts} = recorder()
    clock.now = 1_002
    starts.event('asked', {layer: 'a', reference, above: ['b']})
    clock.now = 1_030
    starts.event('requested', {layer: 'b', cause: 'metadata', durationMs: 20, bytes: 5, failed: false})
    starts.event('tocParsed', {layer: 'a', durationMs: 10})
    starts.event('attached', {layer: 'a', durationMs: 1})
    clock.now = 1_032
    // The request had come before its labels were read.
    starts.event('prepared', {layer: 'a', durationMs: 32})
    clock.now = 1_040
    starts.event('asked', {layer: 'b', reference, above: []})
    starts.event('used', {reference, layers: ['b', 'a']})
    clock.now = 1_100
    starts.event('read', {layer: 'b', durationMs: 40, bytes: 4096, hit: false})
    starts.event('read', {layer: 'b', durationMs: 0, bytes: 4096, hit: true})
    expect(starts.starts()).toEqual([
      {
        reference,
        beganAt: 1_700_000_001_000,
        layers: ['b', 'a'],
        dropped: 0,
        spans: [
          {layer: 'b', step: 'toc-request', fromMs: 10, toMs: 30, bytes: 5},
          {layer: 'a', step: 'toc', fromMs: 20, toMs: 30, bytes: 0},
          {layer: 'a', step: 'mount', fromMs: 29, toMs: 30, bytes: 0},
          {layer: 'a', step: 'prepare', fromMs: 0, toMs: 32, bytes: 0},
          {layer: 'b', step: 'use', fromMs: 40, toMs: 40, bytes: 0},
          {layer: 'b', step: 'read', fromMs: 60, toMs: 100, bytes: 4096},
        ],
      },
    ])
  })

  it('has a start begin with what is said before any layer is asked for', () => {
    const {clock, starts} = recorder()
    starts.event('announced', {reference, layers: ['b', 'a']})
    clock.now += 20
    starts.event('tocParsed', {layer: 'b', durationMs: 5})
    starts.event('asked', {layer: 'a', reference, above: ['b']})
    expect(starts.starts()).toMatchObject([
      {layers: ['b', 'a'], spans: [{step: 'toc', fromMs: 15, toMs: 20}]},
    ])
    // Another pull of the same image.
    starts.event('announced', {reference, layers: ['b', 'a']})
    expect(starts.starts()).toHaveLength(2)
  })

  it('begins another start when a layer is asked for again, or another container is made', () => {
    const {clock, starts} = recorder()
    starts.event('asked', {layer: 'a', reference, above: []})
    starts.event('used', {reference, layers: ['a']})
    // The same container's mounts, asked for once more.
    starts.event('used', {reference, layers: ['a']})
    expect(starts.starts()).toHaveLength(1)
    clock.now += 5_000
    starts.event('used', {reference, layers: ['a']})
    expect(starts.starts()).toHaveLength(2)
    starts.event('asked', {layer: 'a', reference, above: []})
    expect(starts.starts()).toHaveLength(2)
    starts.event('asked', {layer: 'a', reference, above: []})
    expect(starts.starts()).toHaveLength(3)
  })

  it('keeps what happens long after a start, and to layers of none, out of it', () => {
    const {clock, starts} = recorder()
    starts.event('asked', {layer: 'a', reference, above: []})
    starts.event('tocParsed', {layer: 'b', durationMs: 1})
    expect(starts.sinceStart('a')).toBe(0)
    expect(starts.sinceStart('b')).toBeUndefined()
    clock.now += 30_001
    starts.event('tocParsed', {layer: 'a', durationMs: 1})
    expect(starts.starts()[0]!.spans).toEqual([])
    expect(starts.sinceStart('a')).toBeUndefined()
  })

  it('remembers some starts, and some steps of each', () => {
    const {starts} = recorder()
    for (let count = 0; count < 20; count++) {
      starts.event('asked', {layer: `layer ${count}`, reference: `image ${count}`, above: []})
    }
    for (let count = 0; count < 405; count++) starts.event('tocParsed', {layer: 'layer 19', durationMs: 1})
    const [last, ...rest] = starts.starts()
    expect(rest).toHaveLength(15)
    expect(rest.at(-1)!.reference).toBe('image 4')
    expect(last!.spans).toHaveLength(400)
    expect(last!.dropped).toBe(5)
  })
})

describe('the steps of a start', () => {
  it('are summed up, time that several take at once being counted once', () => {
    const span = (fromMs: number, toMs: number) => ({
      layer: 'a',
      step: 'read' as const,
      fromMs,
      toMs,
      bytes: 10,
    })
    expect(totalsOf([span(30, 40), span(0, 10), span(5, 8), span(8, 20)])).toEqual([
      {step: 'read', fromMs: 0, toMs: 40, coveredMs: 30, count: 4, bytes: 40},
    ])
  })

  it('are those of the last start of an image, under whose name ever', () => {
    const {clock, starts} = recorder()
    starts.event('asked', {layer: 'a', reference, above: ['b']})
    clock.now += 1
    starts.event('asked', {layer: 'c', reference: 'other', above: []})
    clock.now += 10_000
    starts.event('used', {reference, layers: ['b', 'a']})
    clock.now += 10_000
    starts.event('used', {reference, layers: ['b', 'a']})
    const all = starts.starts()
    expect(lastStartOf(all, reference, undefined)).toBe(all[0])
    expect(lastStartOf(all, 'same layers', 'b')).toBe(all[0])
    expect(lastStartOf(all, 'other', 'c')?.layers).toEqual(['c'])
    expect(lastStartOf(all, 'none', undefined)).toBeUndefined()
  })
})
