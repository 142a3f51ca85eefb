// A layer with one of everything.

import {archive, directory, gnuLong, member, pax} from '../support/tar.ts'

/** Everything that a layer may hold. */
export const EVERYTHING = archive(
  directory('./'),
  member({name: './d/', typeflag: '5', mode: 0o1777, uid: 3, gid: 4, mtime: 1e9, userName: 'u'}),
  pax({
    'SCHILY.xattr.security.capability': Buffer.from('0100000200200000000000000000000000000000', 'hex'),
    mtime: '16.5',
  }),
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
