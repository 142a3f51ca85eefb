// Messages against the structures of include/uapi/linux/fuse.h, written out by hand.

import {describe, expect, it} from 'vitest'
import {
  encodeInvalidateEntry,
  encodeInvalidateInode,
  encodeResend,
  type FuseAttributes,
  negotiate,
  parseGetXattr,
  parseInterrupt,
  parseListXattr,
  parseName,
  parseRead,
  parseRequest,
  putAttrReply,
  putDirent,
  putDirentPlus,
  putEntry,
  putOpenReply,
  putReplyHeader,
  putStatfs,
  putXattrSize,
} from '../../src/lib/fuse/protocol.ts'
import {bytesOf, requestOf, requestWith} from './messages.ts'

const ATTRIBUTES: FuseAttributes = {
  nodeId: 2 ** 40 + 5,
  size: 2 ** 33 + 1,
  mode: 0o100644,
  links: 3,
  uid: 1000,
  gid: 2000,
  devMajor: 0x123,
  devMinor: 0x45678,
  mtimeSeconds: -2,
  mtimeNanoseconds: 999_999_999,
}

/** struct fuse_attr of it. */
const ATTR = bytesOf(
  [2 ** 40 + 5, 64],
  [2 ** 33 + 1, 64],
  [2 ** 24 + 1, 64],
  ...Array.from({length: 3}, () => [-2, 64] as const),
  ...Array.from({length: 3}, () => [999_999_999, 32] as const),
  [0o100644, 32],
  [3, 32],
  [1000, 32],
  [2000, 32],
  [0x4561_2378, 32],
  [4096, 32],
  [0, 32],
)

const FOREVER = [1_000_000_000, 64] as const

describe('a request', () => {
  it('has a kind, an id that is echoed, an inode and the thread that waits', () => {
    const request = requestWith(0x8000_0000_0000_0007n, 3, 2 ** 52 + 1)
    expect(request).toMatchObject({opcode: 3, nodeId: 2 ** 52 + 1, pid: 4242, unique: 0x8000_0000_0000_0007n})
  })

  it('that is cut off, or has another length than it says, is none', () => {
    const {bytes} = requestOf(1, 1, 'name\0')
    for (let size = 0; size < bytes.length; size++)
      expect(parseRequest(bytes.subarray(0, size))).toBeUndefined()
    expect(parseRequest(Buffer.concat([bytes, Buffer.alloc(1)]))).toBeUndefined()
  })

  it('to look up has a name, in whatever bytes', () => {
    expect(parseName(requestOf(1, 1, 'a\xff\0'))).toEqual(Buffer.from([0x61, 0xff]))
    expect(parseName(requestOf(1, 1, 'no end'))).toEqual(Buffer.from('no end'))
  })

  it('to read has a range, of at most a mebibyte', () => {
    expect(parseRead(requestOf(15, 2, [9, 64], [2 ** 41, 64], [8192, 32], [0, 32]))).toEqual({
      offset: 2 ** 41,
      size: 8192,
    })
    expect(parseRead(requestOf(15, 2, [0, 64], [0, 64], [-1, 32])).size).toBe(1 << 20)
  })

  it('about extended attributes says how much room there is', () => {
    expect(parseGetXattr(requestOf(22, 2, [300, 32], [0, 32], 'user.x\0'))).toEqual({
      size: 300,
      name: Buffer.from('user.x'),
    })
    expect(parseListXattr(requestOf(23, 2, [300, 32], [0, 32]))).toEqual({size: 300})
  })

  it('to interrupt names another request', () => {
    expect(parseInterrupt(requestOf(36, 0, [12, 64]))).toBe(12n)
  })
})

describe('a reply', () => {
  const out = Buffer.alloc(1024)
  const check = (size: number, expected: Buffer) => {
    expect(out.subarray(0, size)).toEqual(expected)
    // What an earlier reply left must not shine through.
    out.fill(0xee)
  }

  it('starts with its size, a negative errno and the id', () => {
    putReplyHeader(out, 7n, 5, 0)
    check(16, bytesOf([16, 32], [-5, 32], [7, 64]))
    putReplyHeader(out, 2n ** 63n + 7n, 0, 100)
    check(16, bytesOf([116, 32], [0, 32], [7, 32], [0x8000_0000, 32]))
  })

  it('to LOOKUP is an entry that stays valid', () => {
    const head = bytesOf([2 ** 40 + 5, 64], [0, 64], FOREVER, FOREVER, [0, 64])
    check(putEntry(out, 0, ATTRIBUTES), Buffer.concat([head, ATTR]))
  })

  it('to GETATTR has the attributes', () => {
    check(putAttrReply(out, 0, ATTRIBUTES), Buffer.concat([bytesOf(FOREVER, [0, 64]), ATTR]))
  })

  it('to OPEN has flags, and with passthrough a backing file', () => {
    check(putOpenReply(out, 0, 2), bytesOf([0, 64], [2, 32], [0, 32]))
    check(putOpenReply(out, 0, 128, 9), bytesOf([0, 64], [128, 32], [9, 32]))
  })

  it('to STATFS is a full file system', () => {
    const zeros = Buffer.alloc(28)
    const expected = bytesOf(
      [70, 64],
      [0, 64],
      [0, 64],
      [8, 64],
      [0, 64],
      [4096, 32],
      [255, 32],
      [4096, 32],
      zeros,
    )
    check(putStatfs(out, 0, {blocks: 70, files: 8}), expected)
  })

  it('about extended attributes may be a size', () => {
    check(putXattrSize(out, 0, 77), bytesOf([77, 32], [0, 32]))
  })

  it('to READDIR has entries padded to 8 bytes, as many as fit', () => {
    const entry = {nodeId: 6, next: 3, type: 8, name: Buffer.from('nine-byte')}
    const expected = bytesOf([6, 64], [3, 64], [9, 32], [8, 32], 'nine-byte', Buffer.alloc(7))
    check(putDirent(out, 0, 40, entry), expected)
    expect(putDirent(out, 0, 39, entry)).toBe(0)
    expect(out[0]).toBe(0xee)
  })

  it('to READDIRPLUS has the attributes too, except for "." and ".."', () => {
    const dirent = bytesOf([6, 64], [3, 64], [1, 32], [8, 32], 'x', Buffer.alloc(7))
    const entry = {nodeId: 6, next: 3, type: 8, name: Buffer.from('x')}
    putEntry(out, 512, ATTRIBUTES)
    const head = Buffer.from(out.subarray(512, 640))
    check(putDirentPlus(out, 0, 160, {...entry, attributes: ATTRIBUTES}), Buffer.concat([head, dirent]))
    check(
      putDirentPlus(out, 0, 160, {...entry, attributes: undefined}),
      Buffer.concat([Buffer.alloc(128), dirent]),
    )
    expect(putDirentPlus(out, 0, 159, {...entry, attributes: ATTRIBUTES})).toBe(0)
  })
})

describe('a notification', () => {
  it('asks for what is unanswered', () => {
    expect(encodeResend()).toEqual(bytesOf([16, 32], [7, 32], [0, 64]))
  })

  it('makes the kernel forget an inode, all of it', () => {
    const expected = bytesOf([40, 32], [2, 32], [0, 64], [2 ** 52, 64], [0, 64], [0, 64])
    expect(encodeInvalidateInode(2 ** 52)).toEqual(expected)
  })

  it('makes the kernel forget a name', () => {
    const expected = bytesOf([36, 32], [3, 32], [0, 64], [1, 64], [3, 32], [0, 32], 'abc\0')
    expect(encodeInvalidateEntry(1, Buffer.from('abc'))).toEqual(expected)
  })
})

describe('the agreement with the kernel', () => {
  const wishes = {readAhead: 1 << 20, passthrough: true, changing: false}
  /** Linux 6.18's INIT, when everything is offered. */
  const init = (minor: number, flags = -1, flags2 = -1) =>
    requestOf(26, 0, [7, 32], [minor, 32], [131_072, 32], [flags, 32], [flags2, 32], Buffer.alloc(44))

  it('has what both sides can do', () => {
    const {body, negotiated} = negotiate(init(44), wishes)!
    expect(negotiated).toEqual({resend: true, passthrough: true})
    expect(body).toHaveLength(64)
    expect([body.readUInt32LE(0), body.readUInt32LE(4), body.readUInt32LE(8)]).toEqual([7, 41, 1 << 20])
    // max_write, max_pages, flags2 with resend and passthrough, max_stack_depth.
    expect([body.readUInt32LE(20), body.readUInt16LE(28)]).toEqual([4096, 32])
    expect([body.readUInt32LE(32), body.readUInt32LE(36)]).toEqual([(1 << 7) | (1 << 5), 1])
  })

  it('does not stack where nobody asked for passthrough', () => {
    const {body, negotiated} = negotiate(init(44), {...wishes, passthrough: false})!
    expect(negotiated).toEqual({resend: true, passthrough: false})
    expect([body.readUInt32LE(32), body.readUInt32LE(36)]).toEqual([1 << 7, 0])
  })

  it('takes nothing that an older kernel does not offer', () => {
    const {body, negotiated} = negotiate(init(31, 1 << 22), wishes)!
    expect(negotiated).toEqual({resend: false, passthrough: false})
    expect([body.readUInt32LE(4), body.readUInt32LE(12), body.readUInt32LE(32)]).toEqual([31, 1 << 22, 0])
    // Without the extension, what stands where flags2 would be means nothing.
    const short = requestOf(26, 0, [7, 32], [35, 32], [131_072, 32], [-1, 32])
    expect(negotiate(short, wishes)!.negotiated).toEqual({resend: false, passthrough: false})
  })

  it('cannot be had with another protocol', () => {
    expect(negotiate(init(30), wishes)).toBeUndefined()
    expect(negotiate(requestOf(26, 0, [8, 32], [0, 32], [0, 32], [0, 32]), wishes)).toBeUndefined()
  })
})
