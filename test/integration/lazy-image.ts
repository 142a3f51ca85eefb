// An image with something of everything, to be compared file by file: what was built is what must be seen.

import {randomBytes} from 'node:crypto'
import {busyboxLayer, type RunnableImage, runnableImage} from '../support/busybox-image.ts'
import {archive, directory, member, pax} from '../support/tar.ts'

const MTIME = 1_700_000_000

/** A version 2 capability set with cap_net_bind_service, as setcap writes it. */
const CAPABILITY = Uint8Array.of(1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

/** Bytes in `large`: several chunks, so that none of them is read by accident. */
export const LARGE_SIZE = 9 * 1024 * 1024

/** Directories `small/0`, `small/1`, …, with 20 files each, 600 KB in all. */
export const SMALL_GROUPS = 25

/** Four layers: a busybox, kinds of files, many small ones, and one that takes away and puts in other places. */
export function lazyImage(): Promise<RunnableImage> {
  return runnableImage(
    [busyboxLayer(directory('./'), directory('bin/')), kindsLayer(), smallFilesLayer(), changesLayer()],
    {
      Env: ['PATH=/bin'],
      Cmd: ['cat', '/data/hello'],
    },
  )
}

function kindsLayer(): Buffer {
  const dir = (name: string, mode = 0o755) => member({name, typeflag: '5', mode, mtime: MTIME})
  const file = (name: string, body: string | Uint8Array, more = {}) =>
    member({name, mtime: MTIME, ...more}, body)
  return archive(
    dir('./'),
    dir('data/'),
    file('data/hello', 'hello\n'),
    file('data/large', randomBytes(LARGE_SIZE)),
    file('data/empty', ''),
    file('data/one-byte', 'x', {mode: 0o600, uid: 1000, gid: 2000}),
    file('data/block', 'b'.repeat(4096), {mode: 0}),
    dir('kinds/', 0o1777),
    file('kinds/setuid', 's', {mode: 0o4755, uid: 12}),
    file('kinds/setgid', 's', {mode: 0o2755, gid: 13}),
    member({name: 'kinds/hard', typeflag: '1', linkName: 'data/hello', mtime: MTIME}),
    member({name: 'kinds/symbolic', typeflag: '2', linkName: '../data/hello', mtime: MTIME}),
    member({name: 'kinds/dangling', typeflag: '2', linkName: '/nowhere', mtime: MTIME}),
    member({name: 'kinds/fifo', typeflag: '6', mtime: MTIME}),
    member({name: 'kinds/null', typeflag: '3', devMajor: 1, devMinor: 3, mode: 0o666, mtime: MTIME}),
    member({name: 'kinds/disk', typeflag: '4', devMajor: 259, devMinor: 70, mtime: MTIME}),
    pax({'SCHILY.xattr.user.note': 'some text', 'SCHILY.xattr.security.capability': CAPABILITY}),
    file('kinds/attributes', 'a', {mode: 0o755}),
    pax({path: `kinds/${'n'.repeat(255)}`}),
    file('kinds/n', 'long'),
    pax({path: 'kinds/ümläut \u{1f4a9}'}),
    file('kinds/u', 'umlaut'),
    dir('removed/'),
    file('removed/file', 'gone'),
    dir('emptied/'),
    file('emptied/file', 'gone too'),
    dir('replaced/'),
    file('replaced/file', 'a directory that becomes a file'),
    file('becomes-directory', 'a file'),
    dir('kept/'),
    file('kept/deleted', 'one of two'),
    file('kept/kept', 'two of two'),
  )
}

function smallFilesLayer(): Buffer {
  const members = [directory('./'), directory('small/')]
  for (let group = 0; group < SMALL_GROUPS; group++) {
    members.push(directory(`small/${group}/`))
    for (let index = 0; index < 20; index++) {
      // Not compressible, so that it takes some time to arrive.
      const body = randomBytes(1 + ((group * 7919 + index * 104_729) % 60_000))
      members.push(member({name: `small/${group}/${index}`, mtime: MTIME + index}, body))
    }
  }
  return archive(...members)
}

function changesLayer(): Buffer {
  return archive(
    directory('./'),
    member({name: '.wh.removed'}),
    directory('emptied/'),
    member({name: 'emptied/.wh..wh..opq'}),
    member({name: 'emptied/new', mtime: MTIME}, 'the only one'),
    member({name: 'replaced', mtime: MTIME}, 'a file now'),
    directory('becomes-directory/'),
    member({name: 'becomes-directory/file', mtime: MTIME}, 'inside'),
    directory('kept/'),
    member({name: 'kept/.wh.deleted'}),
  )
}
