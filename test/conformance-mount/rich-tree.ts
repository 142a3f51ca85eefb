// One layer with every kind of file, attribute and name that Linux has.

import {readFileSync} from 'node:fs'
import {decodeByteText} from '../../src/lib/io/byte-text.ts'
import {type FileNode, opaqueDirectory, whiteoutNode} from '../../src/lib/vfs/file-tree.ts'
import {createLayerBuilder, directory, node, type SampleLayer} from './sample-layer.ts'

/** A version 2 capability set with cap_net_bind_service, as setcap writes it. */
export const CAPABILITY = Uint8Array.of(1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

/** A program of this machine that needs nothing but the C library. */
const PROGRAM = '/usr/bin/true'

const BINARY_NAME = decodeByteText(Uint8Array.of(0xff, 0xfe, 0x0a, 0xc3, 0x28))

export function richLayer(): SampleLayer {
  const {file, layer} = createLayerBuilder()
  const shared = file('one file, three names\n', {mode: 0o640, uid: 7})
  const sizes = [0, 1, 4095, 4096, 4097, 65536, 1048577, 5_000_000]
  return layer(
    directory(
      {
        bin: directory({
          program: file(readFileSync(PROGRAM), {mode: 0o755}),
          script: file('#!/bin/sh\necho from a script\n', {mode: 0o755}),
          capable: file('c', {mode: 0o755, xattrs: new Map([['security.capability', CAPABILITY]])}),
          setuid: file('s', {mode: 0o4755, uid: 12, gid: 34}),
          setgid: file('s', {mode: 0o2711, gid: 99}),
          forbidden: file('n', {mode: 0}),
        }),
        sticky: directory({}, {mode: 0o1777}),
        inherits: directory({}, {mode: 0o2775, uid: 4_000_000_000, gid: 3_000_000_000}),
        links: directory({first: shared, below: directory({second: shared})}),
        third: shared,
        symlinks: directory(symlinks()),
        devices: directory({
          null: node('char', {devMajor: 1, devMinor: 3, mode: 0o666}),
          disk: node('block', {devMajor: 259, devMinor: 70_000, mode: 0o660, gid: 6}),
          pipe: node('fifo', {mode: 0o622}),
          gone: whiteoutNode(),
        }),
        opaque: opaqueDirectory(directory({kept: file('kept')})),
        attributes: directory(attributes(file('x'))),
        names: directory({
          ['n'.repeat(255)]: file('longest'),
          ['ü'.repeat(127)]: file('long in UTF-8'),
          [BINARY_NAME]: file('not UTF-8'),
          '\u{1f4a9} \\040\t\n"$(x)': file('odd'),
          [` ${BINARY_NAME}`]: directory({[BINARY_NAME]: file('in it')}),
        }),
        times: directory(times(seconds => file(String(seconds)))),
        sizes: directory(Object.fromEntries(sizes.map(size => [`${size}`, file({size})]))),
        deep: Array.from({length: 60}).reduce<FileNode>(
          below => directory({below}, {mtimeSeconds: 60}),
          file('the ground'),
        ),
        many: directory(
          Object.fromEntries(Array.from({length: 700}, (_, index) => [`file-${index}`, file(`${index}\n`)])),
        ),
        empty: directory({}),
      },
      {mode: 0o751, uid: 1, gid: 2, mtimeSeconds: 1_000_000_000, mtimeNanoseconds: 5},
    ),
  )
}

function symlinks(): Record<string, FileNode> {
  const targets: Record<string, string> = {
    short: 'first',
    absolute: '/etc/passwd',
    dangling: '../../../../no/such/thing',
    // A block of ext4, where the plain copy is, holds a target of 4095 bytes and its NUL.
    long: `${'d/'.repeat(2047)}x`,
    binary: BINARY_NAME,
  }
  return Object.fromEntries(
    Object.entries(targets).map(([name, linkName]) => [name, node('symlink', {linkName, uid: 5})]),
  )
}

function attributes(plain: FileNode): Record<string, FileNode> {
  const of = (...pairs: [string, Uint8Array][]) => ({...plain, xattrs: new Map(pairs)}) as FileNode
  return {
    none: {...plain},
    one: of(['user.name', Buffer.from('value')]),
    empty: of(['user.empty', new Uint8Array(0)]),
    binary: of(['user.binary', Uint8Array.of(0, 255, 10, 0)]),
    large: of(['user.large', new Uint8Array(3000).fill(0x61)]),
    several: of(
      ['user.a', Buffer.from('1')],
      ['user.b', Buffer.from('2')],
      ['trusted.mine', Buffer.from('3')],
      [`user.${'long'.repeat(60)}`, Buffer.from('4')],
    ),
    directory: directory({}, {xattrs: new Map([['user.d', Buffer.from('of a directory')]])}),
    symlink: node('symlink', {linkName: 'none', xattrs: new Map([['trusted.l', Buffer.from('of a link')]])}),
  }
}

function times(file: (seconds: number) => FileNode): Record<string, FileNode> {
  const moments: [number, number][] = [
    [0, 0],
    [0, 1],
    [-1, 999_999_999],
    [-2_000_000_000, 5],
    [1_700_000_000, 123_456_789],
    [2 ** 32 + 7, 999_999_999],
  ]
  return Object.fromEntries(
    moments.map(([mtimeSeconds, mtimeNanoseconds]) => [
      `${mtimeSeconds}.${mtimeNanoseconds}`,
      {...file(mtimeSeconds), mtimeSeconds, mtimeNanoseconds},
    ]),
  )
}
