import {readFileSync} from 'node:fs'
import {describe, expect, it} from 'vitest'
import {programNeeds} from '../../src/lib/program/program-needs.ts'
import {elfProgram} from '../support/elf.ts'
import {createRandom} from '../support/random.ts'

const needsOf = (bytes: Uint8Array) =>
  programNeeds(async (offset, length) => bytes.subarray(offset, offset + length), bytes.length)

const NOTHING = {interpreters: [], libraries: [], searchPath: [], machine: undefined}

describe('what a program needs', () => {
  it('is what its ELF file says', async () => {
    const {interpreters, libraries} = await needsOf(readFileSync(process.execPath))
    expect(interpreters).toEqual([expect.stringMatching(/^\/lib.*\/ld-/)])
    expect(libraries).toEqual(expect.arrayContaining(['libc.so.6', 'libm.so.6']))
  })

  it.each([
    [32, 'little', 3],
    [32, 'big', 8],
    [64, 'little', 183],
    [64, 'big', 22],
  ] as const)(
    'is what a program of %i bits says whose bytes are in %s order',
    async (bits, order, number) => {
      const bytes = elfProgram({
        bits,
        order,
        machine: number,
        interpreter: '/lib/ld.so.1',
        libraries: ['libc.so.6', 'libapp.so'],
        searchPath: '$ORIGIN/../lib:/opt/lib',
      })
      expect(await needsOf(bytes)).toEqual({
        interpreters: ['/lib/ld.so.1'],
        libraries: ['libc.so.6', 'libapp.so'],
        searchPath: ['$ORIGIN/../lib', '/opt/lib'],
        machine: {number, bits},
      })
    },
  )

  it.each([
    ['#!/bin/sh\necho', ['/bin/sh']],
    ['#! /usr/bin/env python3\n', ['/usr/bin/env', 'python3']],
    ['#!/bin/sh', ['/bin/sh']],
  ])('is the interpreter of a script: %j', async (text, interpreters) => {
    expect(await needsOf(Buffer.from(text))).toEqual({...NOTHING, interpreters})
  })

  it.each([
    ['nothing', new Uint8Array(0)],
    ['a text', Buffer.from('hello')],
    ['a header that ends', Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1])],
    [
      'a program of an unknown width',
      Buffer.concat([Buffer.from([0x7f, 0x45, 0x4c, 0x46, 3, 1]), Buffer.alloc(100)]),
    ],
  ])('is nothing for %s', async (_, bytes) => {
    expect(await needsOf(bytes)).toEqual(NOTHING)
  })

  it('never fails for a damaged or cut program', async () => {
    const whole = readFileSync('/bin/sh')
    for (const length of [64, 100, 1000, 4096, whole.length - 1]) await needsOf(whole.subarray(0, length))
    const random = createRandom(7)
    for (let round = 0; round < 300; round++) {
      const damaged = Buffer.from(whole)
      for (let count = 0; count < 8; count++) damaged[random(1024)] = random(256)
      const {libraries} = await needsOf(damaged)
      expect(libraries.length).toBeLessThanOrEqual(128)
    }
  })
})
