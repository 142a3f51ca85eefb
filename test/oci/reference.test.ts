import {describe, expect, test} from 'vitest'
import {
  familiarName,
  formatReference,
  parseReference,
  registryHostOf,
  repositoryOf,
  tagOrDigestOf,
  withDefaultTag,
  withDigest,
  withTag,
} from '../../src/lib/oci/reference.ts'

const HEX = '0123456789abcdef'.repeat(4)
const DIGEST = `sha256:${HEX}`

/** `text` means `canonical`, is written `familiar` for people, and asks `host`. */
function check(text: string, canonical: string, familiar: string, host: string): void {
  const reference = parseReference(text)
  expect(formatReference(reference)).toBe(canonical)
  expect(familiarName(reference)).toBe(familiar)
  expect(registryHostOf(reference)).toBe(host)
  expect(reference.text).toBe(text)
  expect(formatReference(parseReference(canonical))).toBe(canonical)
  expect(formatReference(parseReference(familiar))).toBe(canonical)
}

describe('what references mean', () => {
  const HUB = 'registry-1.docker.io'
  test('an official image', () => check('debian', 'docker.io/library/debian', 'debian', HUB))
  test('an official image with a tag', () =>
    check('debian:12', 'docker.io/library/debian:12', 'debian:12', HUB))
  test("a user's image", () => check('user/app', 'docker.io/user/app', 'user/app', HUB))
  test('a deep name on Docker Hub', () => check('a/b/c', 'docker.io/a/b/c', 'a/b/c', HUB))
  test('a deep name under library', () => check('library/a/b', 'docker.io/library/a/b', 'library/a/b', HUB))
  test('Docker Hub by name', () => check('docker.io/debian', 'docker.io/library/debian', 'debian', HUB))
  test("Docker Hub's old name", () =>
    check('index.docker.io/library/debian', 'docker.io/library/debian', 'debian', HUB))
  test('a domain', () => check('ghcr.io/o/app:1', 'ghcr.io/o/app:1', 'ghcr.io/o/app:1', 'ghcr.io'))
  test('a port', () => check('r:5000/app', 'r:5000/app', 'r:5000/app', 'r:5000'))
  test('localhost', () => check('localhost/app', 'localhost/app', 'localhost/app', 'localhost'))
  test('a domain with capitals', () => check('Reg/app', 'Reg/app', 'Reg/app', 'Reg'))
  test('an IPv6 address', () =>
    check('[::1]:5000/app:1', '[::1]:5000/app:1', '[::1]:5000/app:1', '[::1]:5000'))
  test('a digest', () =>
    check(`debian@${DIGEST}`, `docker.io/library/debian@${DIGEST}`, `debian@${DIGEST}`, HUB))
  test('tag and digest', () =>
    check(`r.io/a:1@${DIGEST}`, `r.io/a:1@${DIGEST}`, `r.io/a:1@${DIGEST}`, 'r.io'))
  test('separators in a path', () => {
    const name = 'r.io/a-b/c_d/e__f/g.h/i---j'
    check(name, name, name, 'r.io')
  })
  test('a name like a port', () => check('app:5000', 'docker.io/library/app:5000', 'app:5000', HUB))
  test('the longest tag', () => {
    const name = `r.io/a:${'t'.repeat(128)}`
    check(name, name, name, 'r.io')
  })
  test('the longest path', () => {
    const name = `r.io/${'p'.repeat(255)}`
    check(name, name, name, 'r.io')
  })
})

describe('what is refused', () => {
  test.each([
    ['', 'empty'],
    ['Debian', 'lower case'],
    ['r.io/App', 'lower case'],
    ['r.io/', 'no valid repository name'],
    ['/app', 'no valid repository name'],
    ['r.io//app', 'no valid repository name'],
    ['r.io/app/', 'no valid repository name'],
    ['r.io/../app', 'no valid repository name'],
    ['r.io/a..b', 'no valid repository name'],
    ['r.io/a___b', 'no valid repository name'],
    ['r.io/-a', 'no valid repository name'],
    ['r.io/a.', 'no valid repository name'],
    ['a b', 'no valid repository name'],
    [' app', 'no valid repository name'],
    ['app\n', 'no valid repository name'],
    ['r.io/a?x=y', 'no valid repository name'],
    ['r.io/a%2fb', 'no valid repository name'],
    ['-r.io/app', 'registry domain'],
    ['r..io/app', 'registry domain'],
    ['user@r.io/app', 'digest'],
    ['r.io:/app', 'registry domain'],
    ['r.io:x/app', 'registry domain'],
    ['r.io:0/app', 'port'],
    ['r.io:65536/app', 'port'],
    ['[::1/app', 'registry domain'],
    ['app:', 'tag'],
    ['app:.x', 'tag'],
    ['app:-x', 'tag'],
    ['app:a/b', 'registry domain'],
    [`app:${'t'.repeat(129)}`, 'tag'],
    ['app@', 'digest'],
    ['app@sha256:abc', 'digest'],
    [`app@sha512:${HEX}`, 'digest'],
    [`app@${DIGEST.toUpperCase()}`, 'digest'],
    [`app@${DIGEST}:1`, 'digest'],
    [HEX, 'image ids'],
    ['https://r.io/app', 'URL'],
    ['docker://r.io/app', 'URL'],
    [`r.io/${'p'.repeat(256)}`, '255'],
    ['a'.repeat(100_000), '1024'],
    [`r.io/${'a-'.repeat(400)}`, '255'],
  ])('%j: %s', (text, problem) => {
    expect(() => parseReference(text)).toThrow(
      expect.objectContaining({code: 'invalid-argument', message: expect.stringContaining(problem)}),
    )
  })
})

describe('changing references', () => {
  const reference = parseReference(`r.io/app:1@${DIGEST}`)

  test('the digest is asked for before the tag, and latest without either', () => {
    expect(tagOrDigestOf(reference)).toBe(DIGEST)
    expect(tagOrDigestOf(parseReference('r.io/app:1'))).toBe('1')
    expect(tagOrDigestOf(parseReference('r.io/app'))).toBe('latest')
  })
  test('a default tag is only for references without tag and digest', () => {
    expect(formatReference(withDefaultTag(parseReference('r.io/app')))).toBe('r.io/app:latest')
    expect(withDefaultTag(reference)).toBe(reference)
    expect(formatReference(withDefaultTag(parseReference(`r.io/app@${DIGEST}`)))).toBe(`r.io/app@${DIGEST}`)
  })
  test('a tag replaces tag and digest', () =>
    expect(formatReference(withTag(reference, '2'))).toBe('r.io/app:2'))
  test('a bad tag is refused', () => expect(() => withTag(reference, 'a b')).toThrow('tag'))
  test('a digest keeps the tag', () =>
    expect(formatReference(withDigest(parseReference('r.io/app:1'), reference.digest!))).toBe(
      `r.io/app:1@${DIGEST}`,
    ))
  test('the repository has neither', () => expect(repositoryOf(reference)).toBe('r.io/app'))
})
