// Every format, built, read, verified and unpacked: nothing of the source's tree may change.

import {describe, expect, it} from 'vitest'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {archive, member, pax} from '../support/tar.ts'
import {checkRoundTrip as check} from './check-round-trip.ts'
import {EVERYTHING} from './everything.ts'
import {decompressed, FORMATS} from './formats.ts'

/** A file of this time, in base-256 and in PAX, with a fraction. */
function fileOf(mtime: number): Buffer[] {
  const field = Buffer.alloc(12)
  field.writeBigInt64BE(BigInt(mtime), 4)
  field.fill(mtime < 0 ? 0xff : 0, 0, 4)
  field[0]! |= 0x80
  return [
    member({name: `base-256/${mtime}`, mtime: field}),
    pax({mtime: `${mtime}.75`}),
    member({name: `pax/${mtime}`}),
  ]
}

describe.each(FORMATS)('$name', format => {
  it('keeps every kind of file as it is', () => check(format, EVERYTHING))
  it('keeps them in another order', () => check(format, EVERYTHING, ['link', 'd', 'empty', 'gone']))
  it.each([
    ['nothing at all', Buffer.alloc(0)],
    ['no file', archive()],
    ['one empty file', archive(member({name: 'a'}))],
    ['files without the end of the archive', member({name: 'a'}, 'a')],
    ['times before the year 1 and after 9999', archive(...[-63e9, 300e9, 9e15].flatMap(fileOf))],
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
