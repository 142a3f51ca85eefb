import {describe, expect, it} from 'vitest'
import {findMount, parseMountinfo} from '../../src/lib/mount/mount-table.ts'

const MOUNTINFO = `23 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw
28 1 254:0 / / rw,relatime - ext4 /dev/root rw
90 28 0:50 / /mnt/a\\040b\\134c ro,nosuid shared:7 master:3 propagate_from:2 - fuse.ctr-remote data ro,user_id=0
91 28 0:51 /sub /mnt/twice rw - tmpfs tmpfs rw
92 91 0:52 / /mnt/twice rw unbindable - fuse tree rw
93 28 0:53 / /mnt/w\xc3\xb6rter rw - tmpfs tmpfs rw
94 28 0:54 / /mnt/truncated rw
`

describe('the table of mounts', () => {
  const check = (path: string, expected: object | undefined) =>
    expect(parseMountinfo(MOUNTINFO, path)).toEqual(expected)

  it('tells what is mounted at a path, whatever tags it has', () => {
    check('/', {device: '254:0', type: 'ext4'})
    check('/proc', {device: '0:21', type: 'proc'})
  })

  it('knows paths with blanks, backslashes and letters beyond ASCII', () => {
    check('/mnt/a b\\c', {device: '0:50', type: 'fuse.ctr-remote'})
    check('/mnt/wörter', {device: '0:53', type: 'tmpfs'})
  })

  it('tells the topmost of several', () => check('/mnt/twice', {device: '0:52', type: 'fuse'}))

  it('tells nothing of paths below, above or beside', () => {
    for (const path of ['/mnt', '/mnt/twice/', '/mnt/twic', '/proc/self', '']) check(path, undefined)
  })

  it('skips lines that are cut off', () => check('/mnt/truncated', undefined))

  it('is that of this process', async () => {
    expect((await findMount('/proc'))?.type).toBe('proc')
    expect(await findMount('/proc/self')).toBeUndefined()
  })
})
