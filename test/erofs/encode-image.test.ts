import {execFileSync} from 'node:child_process'
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import {join} from 'node:path'
import {describe, expect, it, onTestFinished} from 'vitest'
import {encodeErofs} from '../../src/lib/erofs/encode-image.ts'
import {canMountErofs, mountErofs} from '../../src/lib/mount/mount-erofs.ts'
import {unmount} from '../../src/lib/native/system-calls.ts'
import {TarScanner} from '../../src/lib/tar/scanner.ts'
import {payloadOffsetOf, type TarEntry} from '../../src/lib/tar/tar-entry.ts'
import {type DirectoryNode, type FileNode, plainDirectory} from '../../src/lib/vfs/file-tree.ts'
import {placeLayer} from '../../src/lib/vfs/layer-places.ts'
import {treeOfLayer} from '../../src/lib/vfs/layer-tree.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

function treeOfTar(path: string): DirectoryNode {
  const entries: TarEntry[] = []
  const scanner = new TarScanner(entry => entries.push(entry))
  scanner.push(readFileSync(path))
  scanner.end()
  return treeOfLayer(placeLayer(entries).entries, payloadOffsetOf)
}

function fileNode(attributes: Partial<FileNode>): FileNode {
  const {children, ...plain} = plainDirectory()
  return {...plain, type: 'reg', mode: 0o644, ...attributes} as FileNode
}

function treeOf(children: Readonly<Record<string, FileNode>>): DirectoryNode {
  return {...plainDirectory(), children: new Map(Object.entries(children))}
}

/** One extended attribute. */
function user(name: string, size: number): Partial<FileNode> {
  return {xattrs: new Map([[`user.${name}`, new Uint8Array(size)]])}
}

describe('an EROFS image', () => {
  it('is the same for the same tree', () => {
    const options = {blockSize: 4096, dataSize: 0} as const
    expect(encodeErofs(plainDirectory(), options)).toEqual(encodeErofs(plainDirectory(), options))
  })

  it('holds metadata only, however large the files are', () => {
    const root = treeOf({huge: fileNode({size: 2 ** 40})})
    expect(encodeErofs(root, {blockSize: 4096, dataSize: 2 ** 40})).toHaveLength(8192)
  })

  const invalid: [string, DirectoryNode, string, RegExp][] = [
    [
      'data that do not start a block',
      treeOf({file: fileNode({size: 10, dataOffset: 100})}),
      'invalid-argument',
      /not at a block/,
    ],
    [
      'data beyond the end',
      treeOf({file: fileNode({size: 1025, dataOffset: 0})}),
      'invalid-argument',
      /the data end at 1024/,
    ],
    ['an empty name', treeOf({'': fileNode({})}), 'unsupported', /0 bytes/],
    ['a name of 256 bytes', treeOf({['é'.repeat(128)]: fileNode({})}), 'unsupported', /256 bytes/],
    ['a name of many blocks', treeOf({['n'.repeat(9000)]: fileNode({})}), 'unsupported', /9000 bytes/],
    ['a name that is a path', treeOf({'a/b': fileNode({})}), 'unsupported', /no directory can have/],
    ['a second "."', treeOf({'.': fileNode({})}), 'unsupported', /no directory can have/],
    ['a second ".."', treeOf({'..': fileNode({})}), 'unsupported', /no directory can have/],
    ['an owner of 33 bits', treeOf({file: fileNode({uid: 2 ** 32})}), 'unsupported', /4294967296/],
    ['a group below zero', treeOf({file: fileNode({gid: -1})}), 'unsupported', /group -1/],
    [
      'a device of too large a number',
      treeOf({dev: fileNode({type: 'block', devMajor: 4096})}),
      'unsupported',
      /4096:0/,
    ],
    [
      'a symlink that nothing can follow',
      treeOf({link: fileNode({type: 'symlink', linkName: 'x'.repeat(4096)})}),
      'unsupported',
      /4096 bytes/,
    ],
    [
      'an extended attribute of 64 KiB',
      treeOf({file: fileNode(user('x', 65_536))}),
      'unsupported',
      /65536 bytes/,
    ],
    [
      'an extended attribute with a long name',
      treeOf({file: fileNode(user('n'.repeat(256), 1))}),
      'unsupported',
      /a name of 256/,
    ],
    [
      'more extended attributes than an inode has room for',
      treeOf({
        file: fileNode({
          xattrs: new Map(Array.from({length: 5}, (_, index) => [`user.${index}`, new Uint8Array(60_000)])),
        }),
      }),
      'unsupported',
      /300052 bytes/,
    ],
  ]
  it.each(invalid)('refuses %s', (_, root, code, message) => {
    for (const blockSize of [512, 4096] as const) {
      const encode = () => encodeErofs(root, {blockSize, dataSize: 1024})
      expect(encode).toThrow(message)
      expect(encode).toThrow(expect.objectContaining({code}))
    }
  })

  it('refuses more data than addresses can reach', () => {
    expect(() => encodeErofs(plainDirectory(), {blockSize: 512, dataSize: 2 ** 41})).toThrow(
      expect.objectContaining({code: 'unsupported'}),
    )
  })
})

describeWith(['fsck.erofs'], 'an EROFS image with blocks of 4 KiB, checked by fsck.erofs', () => {
  async function check(root: DirectoryNode, dataSize: number): Promise<void> {
    const directory = await temporaryDirectory()
    const [image, data] = [join(directory, 'image'), join(directory, 'data')]
    writeFileSync(image, encodeErofs(root, {blockSize: 4096, dataSize}))
    writeFileSync(data, '')
    truncateSync(data, dataSize)
    execFileSync('fsck.erofs', [`--device=${data}`, image], {stdio: 'pipe'})
  }

  it('is valid with nothing in it', () => check(plainDirectory(), 0))

  it('is valid with everything at its limit', () =>
    check(
      treeOf({
        ['n'.repeat(255)]: fileNode({}),
        huge: fileNode({size: 2 ** 33 + 5}),
        device: fileNode({type: 'char', devMajor: 4095, devMinor: 2 ** 20 - 1}),
        link: fileNode({type: 'symlink', linkName: 'x'.repeat(4095)}),
        owned: fileNode({uid: 2 ** 32 - 1, gid: 2 ** 32 - 1}),
        before: fileNode({mtimeSeconds: -(2 ** 40), mtimeNanoseconds: 999_999_999}),
        attributes: fileNode({
          xattrs: new Map([
            ['user.x', new Uint8Array(65_535)],
            [`user.${'n'.repeat(250)}`, new Uint8Array(7)],
            ['other.x', new Uint8Array(7)],
          ]),
        }),
      }),
      2 ** 34,
    ))

  // Around a block's end, where an inode's tail has to move.
  it('is valid with tails of every length', () =>
    check(
      treeOf(
        Object.fromEntries(
          Array.from({length: 4095}, (_, index) => [
            `link${index}`,
            fileNode({
              type: 'symlink',
              linkName: 'x'.repeat(index + 1),
              ...(index % 3 ? {} : user('x', index % 50)),
            }),
          ]),
        ),
      ),
      0,
    ))
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

  /** Every path below the root with all that stat says of it but inode numbers, directories' link counts and atimes. */
  const listing = (root: string) =>
    execFileSync('find', ['.', '-mindepth', '1', '-printf', '%p %y %m %U %G %s %T@ %l\\n'], {
      cwd: root,
      encoding: 'utf8',
      maxBuffer: 1 << 24,
    })
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
        mkdir -p "$(printf 'd/%.0s' $(seq 1000))"
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
