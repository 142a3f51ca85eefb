import {describe, expect, it} from 'vitest'
import {formatLayers} from '../../src/cli/lazy-status.ts'
import type {LazyLayerStatus} from '../../src/lib/layer/lazy-layer-status.ts'
import {layersOfImage} from '../../src/lib/lazy-status/layers-of-image.ts'

const layer = (more: Partial<LazyLayerStatus> = {}): LazyLayerStatus => ({
  mountpoint: '/snapshots/1/fs',
  reference: 'example.com/app:1',
  digest: `sha256:${'0123456789abcdef'.repeat(4)}`,
  lazy: true,
  backend: 'erofs',
  size: 1000,
  fetched: 0,
  deviceSize: 4096,
  present: 0,
  prefetchSize: 0,
  requests: 3,
  errors: 0,
  ...more,
})

/** The columns of the only line below the header. */
const columnsOf = (status: LazyLayerStatus): string[] =>
  formatLayers([status])
    .split('\n')[1]!
    .trim()
    .split(/ {2,}| (?=\d)| (?=-)/)

describe('the table of layers', () => {
  it('has a line for each, under a header', () => {
    expect(formatLayers([layer(), layer()]).split('\n')).toHaveLength(3)
    expect(formatLayers([layer()])).toMatch(/^REF +LAYER +STATE +FETCHED +SIZE +REQUESTS +ERRORS +NOTE/)
  })

  it('shows how a layer is mounted', () => {
    expect(formatLayers([layer()])).toContain(' lazy/erofs ')
    expect(formatLayers([layer({backend: 'fuse'})])).toContain(' lazy/fuse ')
    expect(formatLayers([layer({backend: 'plain', fetched: 1000})])).toContain(' complete ')
    expect(formatLayers([layer({lazy: false, reason: 'it is haunted'})])).toMatch(
      / not-lazy .* it is haunted/,
    )
  })

  it('rounds down, so that 100 % is all of it', () => {
    expect(columnsOf(layer({fetched: 999}))).toContain('99%')
    expect(columnsOf(layer({fetched: 1000}))).toContain('100%')
    expect(columnsOf(layer({fetched: 1200}))).toContain('100%')
    expect(columnsOf(layer({size: 0}))).not.toContain('0%')
  })

  it('notes why a layer is not lazy rather than its last error', () => {
    expect(formatLayers([layer({lastError: 'HTTP 500'})])).toContain('HTTP 500')
    expect(formatLayers([layer({reason: 'no TOC', lastError: 'HTTP 500'})])).not.toContain('HTTP 500')
  })
})

describe('the layers of one image', () => {
  it('are those of its name, in full, where there is no containerd to ask', async () => {
    const all = [
      layer(),
      layer({reference: 'example.com/app:2'}),
      layer({reference: 'docker.io/library/app:latest'}),
    ]
    const nobody = {address: '/nonexistent/containerd.sock', snapshotter: 'stargz'}
    expect(await layersOfImage(all, 'example.com/app:1', nobody)).toEqual([all[0]])
    expect(await layersOfImage(all, 'app', nobody)).toEqual([all[2]])
  })
})
