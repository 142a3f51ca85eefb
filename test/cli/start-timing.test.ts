import {expect, it} from 'vitest'
import {formatStart} from '../../src/cli/start-timing.ts'

it('shows the steps of a start, of all layers and of each, bottom first', () => {
  const [top, bottom] = ['sha256:0123456789abcdef', 'sha256:fedcba9876543210']
  const text = formatStart({
    reference: 'example.com/app:1',
    beganAt: 1_700_000_000_000,
    layers: [top, bottom],
    dropped: 3,
    spans: [
      {layer: bottom, step: 'toc-request', fromMs: 1, toMs: 21.04, bytes: 2048},
      {layer: top, step: 'toc-request', fromMs: 2, toMs: 31, bytes: 1024},
      {layer: bottom, step: 'mount', fromMs: 25, toMs: 26, bytes: 0},
    ],
  })
  expect(text.split('\n').map(line => line.trimEnd())).toEqual([
    'example.com/app:1: start at 2023-11-14T22:13:20.000Z, in milliseconds since then; 3 steps are left out',
    'LAYER               STEP        FROM TO   GOES-ON COUNT BYTES',
    'all                 toc-request 1.0  31.0 30.0    2     3.0 KiB',
    'all                 mount       25.0 26.0 1.0     1     -',
    'sha256:fedcba987654 toc-request 1.0  21.0 20.0    1     2.0 KiB',
    'sha256:fedcba987654 mount       25.0 26.0 1.0     1     -',
    'sha256:0123456789ab toc-request 2.0  31.0 29.0    1     1.0 KiB',
  ])
})
