import {expect, test} from 'vitest'
import {
  formatPlatform,
  hostPlatform,
  matchesPlatform,
  normalizePlatform,
  parsePlatform,
} from '../../src/lib/oci/platform.ts'

test.each([
  ['linux/amd64', 'linux/amd64'],
  ['linux/x86_64', 'linux/amd64'],
  ['linux/x86-64', 'linux/amd64'],
  ['LINUX/AMD64', 'linux/amd64'],
  [' linux/amd64 ', 'linux/amd64'],
  ['linux/amd64/v1', 'linux/amd64'],
  ['linux/amd64/v3', 'linux/amd64/v3'],
  ['linux/arm64', 'linux/arm64'],
  ['linux/arm64/v8', 'linux/arm64'],
  ['linux/aarch64', 'linux/arm64'],
  ['linux/arm', 'linux/arm/v7'],
  ['linux/arm/v6', 'linux/arm/v6'],
  ['linux/arm/6', 'linux/arm/v6'],
  ['linux/armhf', 'linux/arm/v7'],
  ['linux/armel', 'linux/arm/v6'],
  ['linux/i386', 'linux/386'],
  ['amd64', 'linux/amd64'],
  ['s390x', 'linux/s390x'],
  ['windows/amd64', 'windows/amd64'],
])('%s is %s', (text, expected) => {
  expect(formatPlatform(parsePlatform(text))).toBe(expected)
})

test('an operating system alone is that of this architecture', () => {
  expect(parsePlatform('linux')).toEqual({...hostPlatform(), os: 'linux'})
})

test.each(['', '/', 'linux/', '/amd64', 'a/b/c/d', 'linux/am d64', 'linux,amd64'])(
  '%j is no platform',
  text => {
    expect(() => parsePlatform(text)).toThrow(expect.objectContaining({code: 'invalid-argument'}))
  },
)

test.each([
  ['linux/amd64', 'linux/amd64', true],
  ['linux/arm64', 'linux/arm64/v8', true],
  ['linux/arm', 'linux/arm/v7', true],
  ['linux/arm/v6', 'linux/arm/v7', false],
  ['linux/amd64', 'linux/amd64/v3', false],
  ['linux/amd64', 'windows/amd64', false],
  ['linux/386', 'linux/amd64', false],
])('%s matches %s: %s', (wanted, offered, expected) => {
  expect(matchesPlatform(parsePlatform(wanted), parsePlatform(offered))).toBe(expected)
})

test("a platform's OS version is kept", () => {
  const platform = {os: 'windows', architecture: 'x86_64', 'os.version': '10.0.1'}
  expect(normalizePlatform(platform)).toEqual({os: 'windows', architecture: 'amd64', 'os.version': '10.0.1'})
})
