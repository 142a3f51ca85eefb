// Every format, built, read, verified and unpacked: nothing of the source's tree may change.

import {describe, expect, it} from 'vitest'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {archive, directory, gnuLong, member, pax} from '../support/tar.ts'
import {checkRoundTrip as check} from './check-round-trip.ts'
import {decompressed, FORMATS} from './formats.ts'

/** Everything that a layer may hold. */
const EVERYTHING = archive(
  directory('./'),
  member({name: './d/', typeflag: '5', mode: 0o1777, uid: 3, gid: 4, mtime: 1e9, userName: 'u'}),
  pax({'SCHILY.xattr.security.capability': Buffer.from('0100000200200000', 'hex'), mtime: '16.5'}),
  member({name: './d/capable', mode: 0o6755}, 'x'.repeat(1000)),
  pax({uid: '4000000', gid: '5000000', path: `d/${'p'.repeat(150)}`}),
  member({name: 'cut'}, 'owned by somebody large'),
  gnuLong('L', `d/${'l'.repeat(150)}`),
  gnuLong('K', `d/${'p'.repeat(150)}`),
  member({name: 'cut', typeflag: '1', format: 'gnu'}),
  member({name: 'empty'}),
  member({name: 'link', typeflag: '1', linkName: './d/capable'}),
  member({name: 'dangling', typeflag: '2', linkName: 'nowhere'}),
  member({name: 'null', typeflag: '3', devMajor: 1, devMinor: 3}),
  member({name: 'loop', typeflag: '4', devMajor: 7}),
  member({name: 'pipe', typeflag: '6'}),
  member({name: Buffer.from([0xff, 0xfe])}, 'not UTF-8'),
  member({name: 'd/.wh..wh..opq'}),
  member({name: '.wh.gone'}),
  member({name: 'twice'}, 'the first'),
  member({name: './twice'}, 'the second'),
)

describe.each(FORMATS)('$name', format => {
  it('keeps every kind of file as it is', () => check(format, EVERYTHING))
  it('keeps them in another order', () => check(format, EVERYTHING, ['link', 'd', 'empty', 'gone']))
  it.each([
    ['nothing at all', Buffer.alloc(0)],
    ['no file', archive()],
    ['one empty file', archive(member({name: 'a'}))],
    ['files without the end of the archive', member({name: 'a'}, 'a')],
  ])('can hold %s', (_, tar) => check(format, tar))
  it('can be made of itself', async () => {
    // What keeps the tar to the last byte refuses one with landmarks or a TOC, and has none.
    const once = await format.build(EVERYTHING, ['link'])
    await check(format, await decompressed(once), ['link'])
  })
  it('can be made of every other format', async () => {
    for (const other of FORMATS) {
      const tar = await decompressed(await other.build(EVERYTHING, ['empty']))
      const isRefused = format.keepsTar && format.isLazy && !other.keepsTar
      const made = check(format, tar)
      if (isRefused) expect(await made.then(() => 'made', codeOf), other.name).toBe('failed-precondition')
      else await made
    }
  })
})
