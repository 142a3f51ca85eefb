import {execFileSync} from 'node:child_process'
import {readFileSync} from 'node:fs'
import {describe, expect, it} from 'vitest'
import {parseLibraryCache} from '../../src/lib/program/library-cache.ts'
import {libraryCache} from '../support/elf.ts'
import {createRandom} from '../support/random.ts'

describe("the loader's cache", () => {
  it('says of every library of this machine what ldconfig says', () => {
    const cache = parseLibraryCache(readFileSync('/etc/ld.so.cache'))
    const lines = execFileSync('/sbin/ldconfig', ['-p'], {encoding: 'utf8'}).matchAll(
      /^\t(\S+) \(.*\) => (\S+)$/gm,
    )
    const wanted = [...lines]
    expect(wanted.length).toBeGreaterThan(10)
    for (const [, name, path] of wanted) expect(cache.get(name!)).toContain(path)
  })

  it.each(['little', 'big'] as const)('is read in %s-endian order', order => {
    const libraries = [
      ['libz.so.1', '/usr/lib/libz.so.1'],
      ['liba.so', '/opt/liba.so'],
      ['liba.so', '/usr/lib/liba.so'],
    ] as const
    expect([...parseLibraryCache(libraryCache(libraries, order))]).toEqual([
      ['libz.so.1', ['/usr/lib/libz.so.1']],
      ['liba.so', ['/opt/liba.so', '/usr/lib/liba.so']],
    ])
  })

  it('never fails for a damaged or cut one, and names only absolute paths', () => {
    const whole = libraryCache([['libz.so.1', '/usr/lib/libz.so.1']], 'little')
    for (let length = 0; length < whole.length; length++) parseLibraryCache(whole.subarray(0, length))
    const random = createRandom(11)
    for (let round = 0; round < 2000; round++) {
      const damaged = Buffer.from(whole)
      for (let count = 0; count < 4; count++) damaged[20 + random(damaged.length - 20)] = random(256)
      for (const paths of parseLibraryCache(damaged).values()) {
        for (const path of paths) expect(path.startsWith('/')).toBe(true)
      }
    }
  })
})
