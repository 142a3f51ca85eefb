import {createHash} from 'node:crypto'
import {CID} from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import {describe, expect, it, onTestFinished} from 'vitest'
import {isCid, parseCid, verifyCid} from '../../src/lib/ipfs/cid.ts'
import {startIpfsNode} from '../support/ipfs-node.ts'

/** What `ipfs add --cid-version=1` and `ipfs add` of Kubo print for a file of "hello world". */
const HELLO = Buffer.from('hello world')
const RAW = 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'
const V0 = 'Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD'

describe('CIDs', () => {
  it('are those of Kubo, and become version 1', () => {
    expect(parseCid(RAW)).toBe(RAW)
    expect(parseCid(V0)).toMatch(/^bafybei/)
    for (const text of [RAW, V0]) expect(() => verifyCid(text, HELLO)).not.toThrow()
  })

  it('the node of the tests gives the same', async () => {
    const node = await startIpfsNode()
    onTestFinished(() => node[Symbol.asyncDispose]())
    expect(await node.add(HELLO)).toBe(RAW)
    expect(await node.add(HELLO, {rawLeaves: false})).toBe(parseCid(V0))
  })

  it('tell bytes that are not theirs, at any place', () => {
    for (const text of [RAW, V0]) {
      for (let at = 0; at < HELLO.length; at += 1) {
        const wrong = Buffer.from(HELLO)
        wrong[at]! ^= 1
        expect(() => verifyCid(text, wrong)).toThrow(/not what the CID stands for/)
      }
      expect(() => verifyCid(text, HELLO.subarray(1))).toThrow(/not what the CID stands for/)
    }
  })

  it('of small files in a block of UnixFS are verified whatever their size', async () => {
    const node = await startIpfsNode()
    onTestFinished(() => node[Symbol.asyncDispose]())
    for (const size of [1, 127, 128, 16_383, 16_384, 200_000]) {
      const bytes = Buffer.alloc(size, 'x')
      verifyCid(await node.add(bytes, {rawLeaves: false}), bytes)
    }
  })

  it('that cannot vouch for a file are refused', async () => {
    const node = await startIpfsNode()
    onTestFinished(() => node[Symbol.asyncDispose]())
    const large = Buffer.alloc(600_000, 'large')
    const hash = createHash('sha256').update(HELLO).digest()
    const dagCbor = CID.createV1(0x71, Digest.create(0x12, hash)).toString()
    const blake2s = CID.createV1(0x55, Digest.create(0xb260, hash)).toString()
    for (const cid of [dagCbor, blake2s]) {
      expect(() => verifyCid(cid, HELLO)).toThrow(/its CID is not of a file, by SHA-256/)
    }
    // In several blocks: the bytes alone do not tell.
    const cid = await node.add(large)
    expect(() => verifyCid(cid, large)).toThrow(/not what the CID stands for/)
  })

  it('are no names of images', () => {
    for (const name of [
      'debian',
      'docker.io/library/debian:12',
      'Qm',
      '',
      `b${'a'.repeat(200)}`,
      'ipfs://x',
    ]) {
      expect(isCid(name)).toBe(false)
      expect(() => parseCid(name)).toThrow(/no CID of IPFS/)
    }
  })
})
