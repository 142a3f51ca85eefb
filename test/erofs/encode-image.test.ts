import {execFileSync} from 'node:child_process'
import {lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {describe, expect, it, onTestFinished} from 'vitest'
import {encodeErofs} from '../../src/lib/erofs/encode-image.ts'
import {unmount} from '../../src/lib/native/system-calls.ts'
import {treeOfLayer} from '../../src/lib/rootfs/layer-tree.ts'
import {canMountErofs, mountErofs} from '../../src/lib/rootfs/mount-erofs.ts'
import {createPlacer} from '../../src/lib/rootfs/placement.ts'
import {createTarScanner} from '../../src/lib/tar/scanner.ts'
import type {TarEntry} from '../../src/lib/tar/tar-entry.ts'
import {type DirectoryNode, plainDirectory} from '../../src/lib/vfs/file-tree.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

function treeOfTar(path: string): DirectoryNode {
  const entries: TarEntry[] = []
  const scanner = createTarScanner(entry => entries.push(entry))
  scanner.push(readFileSync(path))
  scanner.end()
  return treeOfLayer(createPlacer().placeLayer(entries))
}

describe('an EROFS image', () => {
  it('is the same for the same tree', () => {
    const options = {blockSize: 4096, dataSize: 0} as const
    expect(encodeErofs(plainDirectory(), options)).toEqual(encodeErofs(plainDirectory(), options))
  })

  it('refuses data that does not start a block', () => {
    const root = plainDirectory()
    const file = {...plainDirectory(), type: 'reg' as const, size: 10, dataOffset: 100}
    root.children.set('file', file)
    expect(() => encodeErofs(root, {blockSize: 512, dataSize: 1024})).toThrow(/not at a block/)
  })
})

describeWith(['root', 'tar', 'setfattr'], 'an EROFS image over a tar, mounted', () => {
  async function mounted(make: (source: string) => void): Promise<{source: string; target: string}> {
    const directory = await temporaryDirectory()
    expect(await canMountErofs(directory)).toBe(true)
    const [source, tar, image, target] = ['source', 'layer.tar', 'image', 'target'].map(name =>
      join(directory, name),
    )
    mkdirSync(source!)
    mkdirSync(target!)
    make(source!)
    execFileSync('tar', ['-C', source!, '--xattrs', '--xattrs-include=*', '--format=pax', '-cf', tar!, '.'])
    const dataSize = lstatSync(tar!).size
    writeFileSync(image!, encodeErofs(treeOfTar(tar!), {blockSize: 512, dataSize}))
    mountErofs({image: image!, data: tar!, target: target!})
    onTestFinished(() => unmount(target!))
    return {source: source!, target: target!}
  }

  /** Every path with everything stat says of it, except inode numbers, link counts of directories and atimes. */
  const listing = (root: string) =>
    execFileSync('find', ['.', '-printf', '%p %y %m %U %G %s %T@ %l\\n'], {cwd: root, encoding: 'utf8'})
      .split('\n')
      .map(line => line.replace(/^(\S+ d \S+ \S+ \S+) \d+ /, '$1 '))
      .sort()

  it('shows the tree that was packed', async () => {
    const {source, target} = await mounted(root => {
      const script = `
        mkdir -p a/b/c empty; printf 'hello\\n' > a/file; ln a/file a/b/hard; ln -s ../file a/b/soft
        head -c 1000000 /dev/urandom > a/big; : > zero; chmod 4755 a/big; chown 12345:54321 a/file
        mkfifo pipe; mknod null c 1 3; mknod disk b 259 70000; touch -d '1960-01-02 03:04:05.123456789' zero
        head -c 512 /dev/zero > exactly; head -c 513 /dev/zero > more
        touch "$(printf 'n%.0s' $(seq 255))"; ln -s "$(printf 'x%.0s' $(seq 4000))" long
        mkdir many; cd many; seq -f 'name-%g' 3000 | xargs touch`
      execFileSync('sh', ['-ec', script], {cwd: root})
    })
    expect(listing(target)).toEqual(listing(source))
    execFileSync('diff', [
      '-r',
      '--no-dereference',
      '--exclude=pipe',
      '--exclude=null',
      '--exclude=disk',
      source,
      target,
    ])
    expect(lstatSync(join(target, 'a/file')).ino).toBe(lstatSync(join(target, 'a/b/hard')).ino)
    expect(lstatSync(join(target, 'a/file')).nlink).toBe(2)
    expect(lstatSync(join(target, 'null')).rdev).toBe(lstatSync(join(source, 'null')).rdev)
    expect(lstatSync(join(target, 'disk')).rdev).toBe(lstatSync(join(source, 'disk')).rdev)
    expect(lstatSync(join(target, 'a')).nlink).toBe(3)
    expect(readlinkSync(join(target, 'long'))).toHaveLength(4000)
  })

  it('keeps extended attributes, whatever their bytes', async () => {
    const {target} = await mounted(root => {
      writeFileSync(join(root, 'ping'), 'x')
      execFileSync(
        'setfattr',
        ['-n', 'security.capability', '-v', '0x0100000200200000000000000000000000000000', 'ping'],
        {cwd: root},
      )
      execFileSync('setfattr', ['-n', 'user.text', '-v', 'value', 'ping'], {cwd: root})
    })
    const dump = execFileSync('getfattr', ['-d', '-m', '-', '-e', 'hex', 'ping'], {
      cwd: target,
      encoding: 'utf8',
    })
    expect(dump).toContain('security.capability=0x0100000200200000000000000000000000000000')
    expect(dump).toContain('user.text=0x76616c7565')
  })

  it('turns whiteouts into what overlayfs takes for them', async () => {
    const {target} = await mounted(root => {
      mkdirSync(join(root, 'dir'))
      writeFileSync(join(root, 'dir/.wh..wh..opq'), '')
      writeFileSync(join(root, '.wh.gone'), '')
    })
    expect(readdirSync(target).sort()).toEqual(['dir', 'gone'])
    const gone = lstatSync(join(target, 'gone'))
    expect([gone.isCharacterDevice(), gone.rdev]).toEqual([true, 0])
    const dump = execFileSync('getfattr', ['-n', 'trusted.overlay.opaque', 'dir'], {
      cwd: target,
      encoding: 'utf8',
    })
    expect(dump).toContain('trusted.overlay.opaque="y"')
  })
})
