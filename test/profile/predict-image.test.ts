import {readdir} from 'node:fs/promises'
import {describe, expect, it} from 'vitest'
import {predictImage} from '../../src/lib/profile/predict-image.ts'
import {runnableImage} from '../support/busybox-image.ts'
import {elfProgram} from '../support/elf.ts'
import {archive, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** A program for s390x: 64 bits, the largest byte first. */
const foreign = {order: 'big', machine: 22} as const

describe('a start that is predicted from an image', () => {
  it('reads files of the layers that overlayfs would show, whatever machine they are for, and leaves nothing behind', async () => {
    const app = elfProgram({
      ...foreign,
      interpreter: '/lib/ld64.so.1',
      libraries: ['libapp.so', 'libgone.so'],
    })
    const base = archive(
      member({name: 'bin', typeflag: '2', linkName: 'usr/bin'}),
      member({name: './usr/bin/app'}, app),
      member({name: 'lib/ld64.so.1'}, elfProgram(foreign)),
      member({name: 'usr/lib/s390x-linux-gnu/libapp.so.1'}, elfProgram(foreign)),
      member({name: 'usr/lib/s390x-linux-gnu/libapp.so', typeflag: '2', linkName: 'libapp.so.1'}),
      member({name: 'usr/lib/libgone.so'}, elfProgram(foreign)),
      member({name: 'etc/hidden/a'}, 'a'),
      member({name: 'data/unread'}, 'unread'),
    )
    const above = archive(
      member({name: 'usr/bin/second'}, elfProgram(foreign)),
      member({name: 'usr/bin/linked', typeflag: '1', linkName: 'usr/bin/second'}),
      member({name: 'usr/lib/.wh.libgone.so'}),
      member({name: 'etc/hidden/.wh..wh..opq'}),
      member({name: 'etc/hidden/b'}, 'b'),
      member({name: 'etc/passwd'}, 'root:x:0:0::/:'),
    )
    const image = await runnableImage([base, above])
    const directory = await temporaryDirectory()
    const words = ['app', '/etc/hidden/a', '/etc/hidden/b', 'linked']
    const start = {words, env: ['PATH=/bin'], workingDirectory: '/'}
    const record = await predictImage(image, start, {temporaryDirectory: directory})
    expect(record.map(({path, layerIndex}) => [layerIndex, path])).toEqual([
      [1, 'etc/passwd'],
      [0, 'usr/bin/app'],
      [0, 'lib/ld64.so.1'],
      [0, 'usr/lib/s390x-linux-gnu/libapp.so.1'],
      [1, 'etc/hidden/b'],
      [1, 'usr/bin/linked'],
    ])
    expect(new Set(record.map(({manifestDigest}) => manifestDigest))).toEqual(new Set([image.manifestDigest]))
    expect(await readdir(directory)).toEqual([])
  })
})
