import {describe, expect, it} from 'vitest'
import {parseLabels} from '../../src/lib/layer/labels.ts'

const A = `sha256:${'a'.repeat(64)}`
const B = `sha256:${'b'.repeat(64)}`
const RPULL = {
  'containerd.io/snapshot/remote/stargz.reference': 'registry.example/app:1',
  'containerd.io/snapshot/remote/stargz.digest': A,
  'containerd.io/snapshot/remote/stargz.layers': `${A},${B}`,
}
const CRI = {
  'containerd.io/snapshot/cri.image-ref': 'registry.example/other:2',
  'containerd.io/snapshot/cri.layer-digest': B,
  'containerd.io/snapshot/cri.image-layers': B,
}

describe('the labels of a snapshot', () => {
  it('are those of rpull, or those of CRI, which go first', () => {
    expect(parseLabels(RPULL)).toMatchObject({
      reference: 'registry.example/app:1',
      digest: A,
      neighbours: [{digest: A}, {digest: B}],
    })
    expect(parseLabels({...RPULL, ...CRI})).toMatchObject({reference: 'registry.example/other:2', digest: B})
  })

  it('say what is verified and prefetched', () => {
    expect(parseLabels(RPULL)).toMatchObject({
      tocDigest: undefined,
      prefetchSize: undefined,
      skipVerify: false,
    })
    const labels = {
      ...RPULL,
      'containerd.io/snapshot/stargz/toc.digest': B,
      'containerd.io/snapshot/remote/stargz.prefetch': '1234',
      'containerd.io/snapshot/remote/stargz.skipverify': 'true',
    }
    expect(parseLabels(labels)).toMatchObject({tocDigest: B, prefetchSize: 1234, skipVerify: true})
  })

  it('may have the TOC digest under a key that Podman does not know', () => {
    const own = {...RPULL, 'containerd.io/snapshot/ctr-remote/toc.digest': A}
    expect(parseLabels(own).tocDigest).toBe(A)
    expect(parseLabels({...own, 'containerd.io/snapshot/stargz/toc.digest': B}).tocDigest).toBe(B)
  })

  it('tell the TOC digests of the other layers, where rpull is ours', () => {
    const tocs = {...RPULL, 'containerd.io/snapshot/remote/stargz.toc-digests': `-,${A}`}
    expect(parseLabels(tocs).neighbours).toEqual([
      {digest: A, tocDigest: undefined, size: undefined},
      {digest: B, tocDigest: A, size: undefined},
    ])
    const sizes = {...tocs, 'containerd.io/snapshot/remote/stargz.sizes': '-5,700'}
    expect(parseLabels(sizes).neighbours.map(({size}) => size)).toEqual([undefined, 700])
  })

  it('that name no layer are no lazy layer', () => {
    expect(() => parseLabels({})).toThrow(expect.objectContaining({code: 'unsupported'}))
    const {'containerd.io/snapshot/remote/stargz.digest': _, ...rest} = RPULL
    expect(() => parseLabels(rest)).toThrow(expect.objectContaining({code: 'unsupported'}))
  })

  it('that make no sense are refused or passed over', () => {
    const digest = (value: string) => ({...RPULL, 'containerd.io/snapshot/remote/stargz.digest': value})
    for (const value of ['x', 'sha256:../../etc', `${A}/`, `sha512:${'a'.repeat(128)}`]) {
      expect(() => parseLabels(digest(value))).toThrow(expect.objectContaining({code: 'invalid-argument'}))
    }
    const odd = {
      ...RPULL,
      'containerd.io/snapshot/remote/stargz.layers': `${A},,rubbish,../x`,
      'containerd.io/snapshot/remote/stargz.prefetch': '-1',
    }
    expect(parseLabels(odd)).toMatchObject({neighbours: [{digest: A}], prefetchSize: undefined})
  })
})
