import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {OCI_LAYER_GZIP} from '../../src/lib/oci/media-type.ts'
import {isLazySnapshot, lazyLabels, saysLazy} from '../../src/lib/rpull/lazy-labels.ts'

const layer = (name: string, more: Partial<Descriptor> = {}): Descriptor => ({
  mediaType: OCI_LAYER_GZIP,
  digest: digestOf(name),
  size: 1,
  ...more,
})

const image = (layers: readonly Descriptor[], skipContentVerify = false) => ({
  reference: 'example.com/app:1',
  manifestDigest: digestOf('manifest'),
  layers,
  skipContentVerify,
  command: {words: ['serve', '-v'], path: '/bin'},
})

describe('the labels of a layer', () => {
  const [a, b, c] = ['a', 'b', 'c'].map(name => layer(name)) as [Descriptor, Descriptor, Descriptor]

  it("are both those of containerd's CRI plugin and those of rpull", () => {
    expect(lazyLabels(image([a, b, c]), 1)).toEqual({
      'containerd.io/snapshot/cri.image-ref': 'example.com/app:1',
      'containerd.io/snapshot/cri.manifest-digest': digestOf('manifest'),
      'containerd.io/snapshot/cri.layer-digest': b.digest,
      'containerd.io/snapshot/cri.image-layers': `${b.digest},${c.digest}`,
      'containerd.io/snapshot/remote/stargz.reference': 'example.com/app:1',
      'containerd.io/snapshot/remote/stargz.digest': b.digest,
      'containerd.io/snapshot/remote/stargz.layers': `${b.digest},${c.digest}`,
      'containerd.io/snapshot/remote/stargz.toc-digests': '-,-',
      'containerd.io/snapshot/remote/stargz.start': '{"words":["serve","-v"],"path":"/bin"}',
      'containerd.io/snapshot/remote/stargz.sizes': `${b.size},${c.size}`,
      'containerd.io/snapshot/remote/stargz.prefetch': '10485760',
    })
  })

  it('ask for no verification only where a person did', () => {
    expect(lazyLabels(image([a], true), 0)).toMatchObject({
      'containerd.io/snapshot/remote/stargz.skipverify': 'true',
    })
  })

  it('fit into what containerd stores, however many layers there are', () => {
    const layers = Array.from({length: 500}, (_, index) =>
      layer(String(index), {urls: ['x'.repeat(3000), 'y'.repeat(3000)]}),
    )
    const labels = lazyLabels(image(layers), 0)
    for (const [key, value] of Object.entries(labels)) expect(key.length + value.length).toBeLessThan(4097)
    const listed = labels['containerd.io/snapshot/remote/stargz.layers']!.split(',')
    expect(listed.length).toBeGreaterThan(50)
    expect(listed).toEqual(layers.slice(0, listed.length).map(({digest}) => digest))
    expect(labels['containerd.io/snapshot/remote/urls']).toBe('x'.repeat(3000))
  })

  it('tell what a start reads of the layers above, as far as that is not too much', () => {
    const planned = (name: string, plan: string) =>
      layer(name, {annotations: {'containerd.io/snapshot/ctr-remote/prefetch.plan': plan}})
    const plansOf = (layers: readonly Descriptor[]) =>
      Object.entries(lazyLabels(image(layers), 0)).filter(([key]) => key.includes('stargz.plan'))
    expect(plansOf([planned('a', '1.A'), b, planned('c', '1.C')])).toEqual([
      ['containerd.io/snapshot/remote/stargz.plan.2', '1.C'],
    ])
    const many = plansOf(Array.from({length: 200}, (_, index) => planned(String(index), 'x'.repeat(4000))))
    expect(many.map(([key]) => key.split('.').at(-1))).toEqual(['1', '2', '3', '4', '5', '6', '7', '8'])
    expect(plansOf([a, planned('c', 'x'.repeat(4090))])).toEqual([])
  })

  it('carry the URLs of the layer, and those of its neighbours by their place in the list', () => {
    const labels = lazyLabels(
      image([a, layer('b', {urls: ['ipfs://b']}), layer('c', {urls: ['u:1', 'u:2']})]),
      1,
    )
    expect(labels).toMatchObject({
      'containerd.io/snapshot/remote/urls': 'ipfs://b',
      'containerd.io/snapshot/remote/urls.0': 'ipfs://b',
      'containerd.io/snapshot/remote/urls.1': 'u:1,u:2',
    })
    expect(lazyLabels(image([a, b]), 0)).not.toHaveProperty(['containerd.io/snapshot/remote/urls'])
  })
})

describe('whether a layer', () => {
  it('can be lazy, its annotations say', () => {
    const annotated = (key: string) => layer('a', {annotations: {[key]: digestOf('toc')}})
    expect(saysLazy(annotated('containerd.io/snapshot/stargz/toc.digest'))).toBe(true)
    expect(saysLazy(annotated('io.github.containers.zstd-chunked.manifest-checksum'))).toBe(true)
    expect(saysLazy(annotated('io.containers.zstd-chunked.manifest-checksum'))).toBe(true)
    expect(saysLazy(annotated('org.opencontainers.image.title'))).toBe(false)
    expect(saysLazy(layer('a'))).toBe(false)
  })

  it('is lazy, the label of its snapshotter says, and none that we sent', () => {
    expect(isLazySnapshot({'containerd.io/snapshot/remote': 'remote snapshot'})).toBe(true)
    expect(isLazySnapshot(lazyLabels(image([layer('a')]), 0))).toBe(false)
  })
})
