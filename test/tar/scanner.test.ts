import {describe, expect, it} from 'vitest'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import {TarScanner, type TarSummary} from '../../src/lib/tar/scanner.ts'
import {DEFAULT_TAR_LIMITS, type TarEntry, type TarLimits} from '../../src/lib/tar/tar-entry.ts'
import {archive, block, directory, gnuLong, member, pax, withChecksum} from '../support/tar.ts'

function scan(
  tar: Uint8Array,
  {
    step = tar.length,
    limits = DEFAULT_TAR_LIMITS,
    takesSparse = false,
  }: {step?: number; limits?: TarLimits; takesSparse?: boolean} = {},
): {entries: TarEntry[]; summary: TarSummary} {
  const entries: TarEntry[] = []
  const scanner = new TarScanner(entry => entries.push(entry), {limits, takesSparse})
  for (let at = 0; at < tar.length; at += step) scanner.push(tar.subarray(at, at + step))
  return {entries, summary: scanner.end()}
}

/** The fields in `expected` of the only entry. */
function check(tar: Uint8Array, expected: Partial<TarEntry>): void {
  const {entries} = scan(tar)
  expect(entries).toHaveLength(1)
  expect(entries[0]).toMatchObject(expected)
}

function refuse(tar: Uint8Array, code: string, message: RegExp, limits?: Partial<TarLimits>): void {
  let failure: unknown
  try {
    scan(tar, {limits: {...DEFAULT_TAR_LIMITS, ...limits}})
  } catch (error) {
    failure = error
  }
  expect(messageOf(failure)).toMatch(message)
  expect(codeOf(failure)).toBe(code)
}

describe('entries', () => {
  it('have the type that the typeflag names', () => {
    const types = ['0', '1', '2', '3', '4', '5', '6', '7', '\0'].map(typeflag => {
      const tar = archive(member({name: 'f', typeflag, linkName: 'target'}))
      return scan(tar).entries[0]!.type
    })
    expect(types).toEqual(['reg', 'hardlink', 'symlink', 'char', 'block', 'dir', 'fifo', 'reg', 'reg'])
  })
  it('of V7 archives are directories when their name ends with a slash', () =>
    check(archive(block({name: 'd/', typeflag: '\0', format: 'v7'})), {type: 'dir', path: 'd', name: 'd/'}))
  it('carry owner, mode, time and names', () =>
    check(archive(member({mode: 0o4755, uid: 7, gid: 8, mtime: 1e9, userName: 'u', groupName: 'g'})), {
      mode: 0o4755,
      uid: 7,
      gid: 8,
      mtimeSeconds: 1e9,
      userName: 'u',
      groupName: 'g',
    }))
  it('carry device numbers', () =>
    check(archive(member({typeflag: '3', devMajor: 5, devMinor: 1})), {devMajor: 5, devMinor: 1}))
  it('have no payload unless they are regular files, whatever their size says', () =>
    check(archive(block({typeflag: '1', linkName: 'x', size: 100})), {size: 0, type: 'hardlink'}))
  it('join a ustar prefix to the name', () =>
    check(archive(block({prefix: 'some/dir', name: 'file'})), {name: 'some/dir/file'}))
  it('of GNU archives have other fields where the prefix would be', () =>
    check(archive(block({prefix: 'some/dir', name: 'file', format: 'gnu'})), {name: 'file'}))
  it('keep names that are not UTF-8 apart', () => {
    const names = [Buffer.from([0x61, 0xff]), Buffer.from([0x61, 0xfe])]
    const {entries} = scan(archive(...names.map(name => member({name}))))
    expect(entries.map(({name}) => name)).toEqual(['a\udcff', 'a\udcfe'])
  })
})

describe('numbers', () => {
  const base256 = (size: number, value: bigint) => {
    const bytes = Buffer.alloc(size)
    let rest = BigInt.asUintN(size * 8, value)
    for (let at = size - 1; at >= 0; at--, rest >>= 8n) bytes[at] = Number(rest & 0xffn)
    bytes[0]! |= 0x80
    return bytes
  }
  it('may be base-256', () => check(archive(block({uid: base256(8, 2n ** 31n)})), {uid: 2 ** 31}))
  it('may be negative in base-256', () =>
    check(archive(block({mtime: base256(12, -12_345n)})), {mtimeSeconds: -12_345}))
  it('in base-256 must be safe integers', () =>
    refuse(archive(block({size: base256(12, 2n ** 60n)})), 'corrupt', /size field/))
  it('may stand between spaces', () => check(archive(block({uid: Buffer.from('   17 \0 ')})), {uid: 0o17}))
  it('must be octal', () => refuse(archive(block({uid: Buffer.from('0000019\0')})), 'corrupt', /uid field/))
  it('must not make a size negative', () =>
    refuse(archive(block({size: base256(12, -1n)})), 'corrupt', /size is negative/))
})

describe('PAX records', () => {
  it('override the header', () =>
    check(
      archive(
        pax({path: 'p/ä', uid: '4000000000', gid: '7', uname: 'me', gname: 'us', mtime: '12.5', size: '3'}),
        member({size: 0}, ''),
        Buffer.alloc(512, 'abc', 'latin1'),
      ),
      {
        name: 'p/ä',
        uid: 4e9,
        gid: 7,
        userName: 'me',
        groupName: 'us',
        mtimeSeconds: 12,
        size: 3,
        mtimeNanoseconds: 5e8,
      },
    ))
  it('give times before the epoch', () =>
    check(archive(pax({mtime: '-1.25'}), member({})), {mtimeSeconds: -2, mtimeNanoseconds: 750_000_000}))
  it('keep extended attributes byte for byte', () => {
    const value = Buffer.from([1, 0, 0, 2, 0xff, 0x0a, 0x3d, 0])
    const {entries} = scan(archive(pax({'SCHILY.xattr.security.capability': value}), member({})))
    expect(Buffer.from(entries[0]!.xattrs!.get('security.capability')!)).toEqual(value)
  })
  it('may be empty, which leaves the header as it is', () =>
    check(archive(pax({path: '', uid: ''}), member({name: 'n', uid: 3})), {name: 'n', uid: 3}))
  it('belong to one entry', () => {
    const {entries} = scan(archive(pax({path: 'a'}), member({name: 'x'}), member({name: 'b'})))
    expect(entries.map(({path}) => path)).toEqual(['a', 'b'])
  })
  it.each([
    ['no size', 'path=x\n'],
    ['a size that is too small', '3 path=x\n'],
    ['a size that is too large', '90 path=x\n'],
    ['a size of zero', '0 path=x\n'],
    ['no equals sign', '8 pathx\n'],
    ['no newline', '9 path=xy'],
    ['no key', '6 =ab\n'],
    ['a huge size', '99999999999999999999 path=x\n'],
  ])('with %s are corrupt', (_, records) => {
    refuse(archive(member({typeflag: 'x'}, records), member({})), 'corrupt', /PAX records are malformed/)
  })
  it('with a NUL in a path are corrupt', () =>
    refuse(archive(pax({path: 'a\0b'}), member({})), 'corrupt', /has a NUL/))
  it('with a number that is none are corrupt', () => {
    for (const records of [{uid: 'x'}, {size: '1e9'}, {mtime: '1.2.3'}, {gid: '99999999999999999999'}]) {
      refuse(archive(pax(records), member({})), 'corrupt', /is not a number/)
    }
  })
})

describe('global PAX records', () => {
  it('hold for all entries that follow, under their own records', () => {
    const {entries} = scan(
      archive(
        member({name: 'before'}),
        pax({uid: '5', uname: 'all'}, 'g'),
        member({name: 'a'}),
        pax({uid: '6'}),
        member({name: 'b'}),
        pax({uid: ''}, 'g'),
        member({name: 'c', uid: 9}),
      ),
    )
    expect(entries.map(({path, uid, userName}) => [path, uid, userName])).toEqual([
      ['before', 0, ''],
      ['a', 5, 'all'],
      ['b', 6, 'all'],
      ['c', 9, 'all'],
    ])
  })
  it('are folded into a header that says the same on its own', () => {
    const {entries} = scan(
      archive(
        pax({uid: '5'}, 'g'),
        gnuLong('L', 'long/name'),
        pax({gid: '6'}),
        member({name: 'n', format: 'gnu'}, 'hi'),
      ),
    )
    const [entry] = entries
    const folded = scan(Buffer.concat([entry!.foldedHeader!, Buffer.alloc(512)])).entries[0]
    expect(folded).toMatchObject({name: 'long/name', uid: 5, gid: 6, size: 2})
  })
  it("are no part of the next entry's header", () => {
    const global = pax({comment: 'x'}, 'g')
    check(archive(global, member({})), {headerOffset: global.length, headerSize: 512})
  })
})

describe('GNU long names', () => {
  it('replace name and link name', () =>
    check(
      archive(
        gnuLong('K', 'l'.repeat(200)),
        gnuLong('L', `${'n'.repeat(150)}`),
        member({typeflag: '2', format: 'gnu'}),
      ),
      {name: 'n'.repeat(150), linkName: 'l'.repeat(200), headerOffset: 0, headerSize: 512 * 5},
    ))
  it('win over PAX records', () =>
    check(archive(pax({path: 'pax'}), gnuLong('L', 'gnu'), member({})), {name: 'gnu'}))
})

describe('paths', () => {
  it.each([
    ['./a//b/./c/', 'a/b/c'],
    ['/etc/passwd', 'etc/passwd'],
    ['a/../b', 'b'],
    ['...', '...'],
    ['.a/..b', '.a/..b'],
  ])('%j is cleaned to %j', (name, path) => check(archive(member({name, typeflag: '5'})), {path, name}))
  it.each(['./', '/', '.'])('%j is the root', name =>
    check(archive(directory(name)), {path: '', type: 'dir'}),
  )
  it.each(['../x', 'a/../../x', '/..'])('%j leaves the layer', name =>
    refuse(archive(member({name})), 'corrupt', /leaves the layer/),
  )
  it('of hard link targets must stay in the layer', () =>
    refuse(
      archive(member({typeflag: '1', linkName: '../../etc/shadow'})),
      'corrupt',
      /link target .* leaves/,
    ))
  it('of symlink targets may lead anywhere', () =>
    check(archive(member({typeflag: '2', linkName: '../../x'})), {linkName: '../../x'}))
  it('of regular files cannot be the root', () => refuse(archive(member({name: '.'})), 'corrupt', /root/))
})

describe('limits', () => {
  it('bound the entries', () =>
    refuse(archive(member({name: 'a'}), member({name: 'b'})), 'unsupported', /more than 1 entries/, {
      entries: 1,
    }))
  it('bound paths', () =>
    refuse(archive(pax({path: 'a/'.repeat(2100)}), member({})), 'unsupported', /longer than 4096/))
  it('bound names', () =>
    refuse(archive(pax({path: 'ä'.repeat(128)}), member({})), 'unsupported', /more than 255 bytes/))
  it('count what a whiteout hides, not its own name', () => {
    const path = `d/.wh.${'a'.repeat(255)}`
    check(archive(pax({path}), member({})), {path})
    refuse(archive(pax({path: `${path}a`}), member({})), 'unsupported', /more than 255 bytes/)
    refuse(archive(pax({path: `${path}/x`}), member({})), 'unsupported', /more than 255 bytes/)
  })
  it('let names of 255 bytes pass', () =>
    check(archive(pax({path: 'a'.repeat(255)}), member({})), {path: 'a'.repeat(255)}))
  it('bound the depth', () =>
    refuse(archive(pax({path: 'a/'.repeat(1100)}), member({})), 'unsupported', /deeper than 1024/))
  it('bound link targets', () =>
    refuse(
      archive(pax({linkpath: 'x'.repeat(5000)}), member({typeflag: '2'})),
      'unsupported',
      /link target is too long/,
    ))
  it('bound PAX headers before they are collected', () =>
    refuse(block({typeflag: 'x', size: 2 ** 21}), 'unsupported', /extended header of 2097152 bytes/))
  it('bound extended attributes', () =>
    refuse(
      archive(pax({'SCHILY.xattr.user.a': Buffer.alloc(65_537)}), member({})),
      'unsupported',
      /attribute/,
    ))
})

describe('what layers must not have', () => {
  it.each([
    ['old GNU', member({typeflag: 'S', format: 'gnu'})],
    ['PAX 0.0', Buffer.concat([pax({'GNU.sparse.size': '10', 'GNU.sparse.offset': '0'}), member({})])],
    ['PAX 0.1', Buffer.concat([pax({'GNU.sparse.map': '0,10'}), member({})])],
    ['PAX 1.0', Buffer.concat([pax({'GNU.sparse.major': '1', 'GNU.sparse.minor': '0'}), member({})])],
  ])('sparse files of the %s format are unsupported where nobody makes plain ones of them', (_, tar) =>
    refuse(archive(tar), 'unsupported', /sparse/),
  )
  it.each(['A', 'D', 'M', 'N', 'V', 'X', 'Z'])('type %j is unsupported', typeflag =>
    refuse(archive(block({typeflag})), 'unsupported', /type/),
  )
})

describe('damage', () => {
  it('to a header is noticed by its checksum', () => {
    const tar = archive(member({name: 'abc'}))
    tar[0]! ^= 1
    refuse(tar, 'corrupt', /checksum/)
  })
  it('is not suspected where an old tar summed signed bytes', () => {
    const header = block({name: 'ä'})
    const signed = header.reduce(
      (sum, byte, at) => sum + (at >= 148 && at < 156 ? 32 : (byte << 24) >> 24),
      0,
    )
    header.write(`${signed.toString(8).padStart(6, '0')}\0 `, 148)
    check(archive(header), {name: 'ä'})
  })
  it('of a single zero block between entries is refused, as Go does', () =>
    refuse(Buffer.concat([member({}), Buffer.alloc(512), member({})]), 'corrupt', /single zero block/))
  it('of headers for no entry is refused', () =>
    refuse(archive(pax({path: 'x'})), 'corrupt', /headers for a next/))
  it('is reported with the place', () => {
    const tar = archive(member({name: 'a'}, 'x'), withChecksum(block({uid: Buffer.from('zzzzzzz\0')})))
    refuse(tar, 'corrupt', /at byte 1024/)
  })
})

describe('the end', () => {
  const whole = Buffer.concat([
    directory('d'),
    pax({path: 'p'}),
    member({}, 'x'.repeat(700)),
    member({name: 'z'}),
  ])
  it('may come without zero blocks, at the end of an entry', () =>
    expect(scan(whole).entries).toHaveLength(3))
  it('may come after one zero block', () =>
    expect(scan(Buffer.concat([whole, Buffer.alloc(512)])).entries).toHaveLength(3))
  it('may be followed by anything', () => {
    const {entries, summary} = scan(Buffer.concat([archive(whole), Buffer.alloc(9000, 7)]))
    expect(entries).toHaveLength(3)
    expect(summary).toEqual({entries: 3, entriesSize: whole.length, size: whole.length + 1024 + 9000})
  })
  it('of nothing at all is an empty archive', () => expect(scan(Buffer.alloc(0)).entries).toEqual([]))
  it('at any byte inside of an entry is corrupt', () => {
    const entryEnds = new Set([0, 512, 512 + 1024 + 512 + 1024, whole.length])
    for (let size = 0; size <= whole.length; size++) {
      if (entryEnds.has(size)) expect(() => scan(whole.subarray(0, size))).not.toThrow()
      else refuse(whole.subarray(0, size), 'corrupt', /ends inside an entry/)
    }
  })
})

it('finds the same entries however the stream is cut', () => {
  const tar = archive(
    directory('d/'),
    gnuLong('L', 'n/'.repeat(300)),
    pax({'SCHILY.xattr.user.x': Buffer.alloc(3000, 9)}),
    member({}, 'y'.repeat(2000)),
    pax({uid: '1'}, 'g'),
    member({name: 'last'}, 'z'),
  )
  const whole = scan(tar)
  for (const step of [1, 7, 511, 512, 513, 4096]) expect(scan(tar, {step})).toEqual(whole)
  expect(whole.entries.map(({headerOffset, headerSize}) => [headerOffset, headerSize])).toEqual([
    [0, 512],
    [512, 512 + 1024 + (512 + 3072) + 512],
    // The global header before it, of two blocks, is no part of the last one.
    [6144 + 2048 + 1024, 512],
  ])
})
