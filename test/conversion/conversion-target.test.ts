import {describe, expect, it} from 'vitest'
import {tocImageLocation} from '../../src/lib/conversion/conversion-target.ts'
import {codeOf} from '../../src/lib/errors/coded-error.ts'

const digest = `sha256:${'a'.repeat(64)}`

describe('the place of the TOC image', () => {
  it.each([
    ['debian', {transport: 'store', name: 'docker.io/library/debian:latest-esgztoc'}],
    ['example.com:5000/app:1', {transport: 'store', name: 'example.com:5000/app:1-esgztoc'}],
    [`example.com/app:1@${digest}`, {transport: 'store', name: 'example.com/app:1-esgztoc'}],
    ['docker://example.com/app:1', {transport: 'docker', reference: 'example.com/app:1-esgztoc'}],
    ['containerd:example.com/app:1', {transport: 'containerd', name: 'example.com/app:1-esgztoc'}],
    ['oci:dir:1', {transport: 'oci', path: 'dir', tag: '1-esgztoc'}],
  ])('of %s', (text, location) => {
    expect(tocImageLocation(text)).toEqual(location)
  })

  it.each([
    `example.com/app@${digest}`,
    `docker://example.com/app:${'t'.repeat(125)}`,
    'oci:dir',
    'oci-archive:file:1',
    'docker-archive:file:app:1',
  ])('there is none beside %s', text => {
    expect(
      (() => {
        try {
          return tocImageLocation(text)
        } catch (error) {
          return codeOf(error)
        }
      })(),
    ).toBe('invalid-argument')
  })
})
