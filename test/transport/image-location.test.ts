import {describe, expect, it} from 'vitest'
import {type ImageLocation, parseImageLocation} from '../../src/lib/transport/image-location.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`

describe('an image location', () => {
  const check = (text: string, expected: ImageLocation) =>
    it(`${text} is ${expected.transport}`, () => {
      expect(parseImageLocation(text)).toEqual(expected)
    })

  check('debian', {transport: 'store', name: 'debian'})
  check('debian:12', {transport: 'store', name: 'debian:12'})
  check('localhost:5000/x', {transport: 'store', name: 'localhost:5000/x'})
  check('localhost:5000/oci:1', {transport: 'store', name: 'localhost:5000/oci:1'})
  check('oci', {transport: 'store', name: 'oci'})
  check('oci/x:1', {transport: 'store', name: 'oci/x:1'})
  check(`oci@${DIGEST}`, {transport: 'store', name: `oci@${DIGEST}`})
  check('docker:24-dind', {transport: 'store', name: 'docker:24-dind'})
  check('docker', {transport: 'store', name: 'docker'})
  check('containerd/containerd:1', {transport: 'store', name: 'containerd/containerd:1'})
  check('[::1]:5000/x', {transport: 'store', name: '[::1]:5000/x'})
  check('docker://debian', {transport: 'docker', reference: 'debian'})
  check('docker://localhost:5000/x:1', {transport: 'docker', reference: 'localhost:5000/x:1'})
  check(`docker://ghcr.io/a/b@${DIGEST}`, {transport: 'docker', reference: `ghcr.io/a/b@${DIGEST}`})
  check('containerd:docker.io/library/debian:12', {
    transport: 'containerd',
    name: 'docker.io/library/debian:12',
  })
  check('oci:dir', {transport: 'oci', path: 'dir'})
  check('oci:/a/dir:v1', {transport: 'oci', path: '/a/dir', tag: 'v1'})
  check('oci:/a/dir:ghcr.io/a/b:v1', {transport: 'oci', path: '/a/dir', tag: 'ghcr.io/a/b:v1'})
  check('oci-archive:a.tar', {transport: 'oci-archive', path: 'a.tar'})
  check('oci-archive:/a b.tar:v1', {transport: 'oci-archive', path: '/a b.tar', tag: 'v1'})
  check('docker-archive:a.tar', {transport: 'docker-archive', path: 'a.tar'})
  check('docker-archive:a.tar:@2', {transport: 'docker-archive', path: 'a.tar', imageIndex: 2})
  check('docker-archive:a.tar:redis', {
    transport: 'docker-archive',
    path: 'a.tar',
    reference: 'docker.io/library/redis:latest',
  })

  it('may end in a colon without a tag, as in skopeo', () => {
    expect(parseImageLocation('oci:dir:')).toEqual({transport: 'oci', path: 'dir'})
  })

  for (const text of [
    '',
    'docker://',
    'docker://UPPER',
    'containerd:',
    'oci:',
    'oci::v1',
    'oci:dir:not a tag',
    'oci:dir:../x',
    `oci:dir:${'x'.repeat(2000)}`,
    'oci:dir\0:v1',
    'oci-archive:',
    'docker-archive:a.tar:@x',
    'docker-archive:a.tar:@-1',
    `docker-archive:a.tar:redis@${DIGEST}`,
    'docker-archive:a.tar:UPPER',
    'dir:/a',
    'https://example.com/x',
  ]) {
    it(`${JSON.stringify(text.slice(0, 40))} is refused`, () => {
      expect(() => parseImageLocation(text)).toThrow(expect.objectContaining({code: 'invalid-argument'}))
    })
  }
})
