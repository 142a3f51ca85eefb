import {expect, test} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {digestFromHash, hexOf, isDigest, parseDigest} from '../../src/lib/oci/digest.ts'

const HEX = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

test('the digest of nothing is the known one', () => {
  expect(digestOf('')).toBe(`sha256:${HEX}`)
})

test('a digest is made from its hash, and gives back its digits', () => {
  const digest = digestFromHash(Buffer.from(HEX, 'hex'))
  expect(digest).toBe(parseDigest(`sha256:${HEX}`))
  expect(hexOf(digest)).toBe(HEX)
})

test.each([
  '',
  'sha256:',
  HEX,
  `sha256:${HEX.slice(1)}`,
  `sha256:${HEX}0`,
  `sha256:${HEX.toUpperCase()}`,
  `SHA256:${HEX}`,
  `sha512:${HEX}${HEX}`,
  `sha256:${HEX}\n`,
  `sha256:../../${HEX.slice(6)}`,
])('%j is no digest', text => {
  expect(isDigest(text)).toBe(false)
  expect(() => parseDigest(text)).toThrow(expect.objectContaining({code: 'invalid-argument'}))
})

test.each([undefined, null, 5, {}, [`sha256:${HEX}`]])('%j is no digest either', value => {
  expect(isDigest(value)).toBe(false)
})

test('a hash of the wrong length makes no digest', () => {
  expect(() => digestFromHash(new Uint8Array(31))).toThrow()
})
