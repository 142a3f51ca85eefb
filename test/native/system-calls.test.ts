import {execFileSync, spawn} from 'node:child_process'
import {once} from 'node:events'
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import {join} from 'node:path'
import {describe, expect, it, onTestFinished} from 'vitest'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import {decodeByteText} from '../../src/lib/io/byte-text.ts'
import {
  dropCache,
  MNT_DETACH,
  MS_RDONLY,
  makeNode,
  mount,
  sendDatagram,
  setTimes,
  setXattr,
  trimMemory,
  UMOUNT_NOFOLLOW,
  unmount,
} from '../../src/lib/native/system-calls.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** The code and the message of what `call` throws. */
function refusal(call: () => void): string {
  try {
    call()
  } catch (error) {
    if (error instanceof CodedError) return `${error.code}: ${error.message}`
    throw error
  }
  return 'no error'
}

describeWith(['root', 'getfattr'], 'system calls', () => {
  it('mount and unmount a file system', async () => {
    const target = await temporaryDirectory()
    mount({source: 'tmpfs', target, type: 'tmpfs', flags: MS_RDONLY, data: 'size=1m,mode=711'})
    onTestFinished(() => {
      if (statSync(target).dev !== statSync(join(target, '..')).dev) unmount(target)
    })
    expect(statSync(target).mode & 0o777).toBe(0o711)
    expect(() => writeFileSync(join(target, 'file'), '')).toThrow(/EROFS/)
    unmount(target)
    expect(statSync(target).dev).toBe(statSync(join(target, '..')).dev)
  })

  it('say what is in use, and leave it mounted', async () => {
    const target = await temporaryDirectory()
    mount({source: 'tmpfs', target, type: 'tmpfs', flags: 0, data: ''})
    onTestFinished(() => unmount(target))
    const fd = openSync(join(target, 'file'), 'w')
    try {
      expect(refusal(() => unmount(target))).toBe(
        `failed-precondition: Cannot unmount ${JSON.stringify(target)}: EBUSY`,
      )
    } finally {
      closeSync(fd)
    }
  })

  it('detach what is in use, so that it goes with its last user', async () => {
    const target = await temporaryDirectory()
    mount({source: 'tmpfs', target, type: 'tmpfs', flags: 0, data: ''})
    const fd = openSync(join(target, 'file'), 'w')
    try {
      unmount(target, MNT_DETACH | UMOUNT_NOFOLLOW)
      expect(statSync(target).dev).toBe(statSync(join(target, '..')).dev)
    } finally {
      closeSync(fd)
    }
  })

  it('name the call, the path and the error', async () => {
    const target = await temporaryDirectory()
    const request = {source: 'none', target, flags: 0, data: ''}
    expect(refusal(() => mount({...request, type: 'nosuchfs'}))).toBe(
      `unsupported: Cannot mount nosuchfs at ${JSON.stringify(target)}: ENODEV`,
    )
    expect(refusal(() => mount({...request, type: 'tmpfs', target: join(target, 'gone')}))).toMatch(
      /^not-found: .*ENOENT$/,
    )
    expect(refusal(() => unmount(target))).toMatch(/EINVAL$/)
    expect(refusal(() => setXattr(join(target, 'gone'), 'user.x', new Uint8Array(1)))).toMatch(
      /^not-found: .*"user.x".*gone": ENOENT$/,
    )
    expect(refusal(() => makeNode(target, 0o010600, 0, 0))).toMatch(/^already-exists: .*EEXIST$/)
    expect(refusal(() => setTimes(join(target, 'gone'), 0, 0))).toMatch(/^not-found: .*ENOENT$/)
  })

  it('refuse a NUL, which would end a path early', async () => {
    const directory = await temporaryDirectory()
    expect(refusal(() => makeNode(join(directory, 'a\0b'), 0o010600, 0, 0))).toMatch(/^invalid-argument: /)
  })

  it('make devices and pipes, also with names that are not UTF-8', async () => {
    const directory = await temporaryDirectory()
    makeNode(join(directory, 'disk'), 0o060640, 259, 70_000)
    expect(lstatSync(join(directory, 'disk')).isBlockDevice()).toBe(true)
    expect(execFileSync('stat', ['-c', '%t %T', join(directory, 'disk')], {encoding: 'utf8'})).toBe(
      `${(259).toString(16)} ${(70_000).toString(16)}\n`,
    )
    const name = Buffer.concat([Buffer.from(`${directory}/pipe-`), Buffer.from([0xff])])
    makeNode(decodeByteText(name), 0o010600, 0, 0)
    expect(lstatSync(name).isFIFO()).toBe(true)
  })

  it('set extended attributes with their exact bytes', async () => {
    const path = join(await temporaryDirectory(), 'file')
    writeFileSync(path, '')
    setXattr(path, 'trusted.bytes', Uint8Array.of(0, 0xff, 0))
    setXattr(path, 'trusted.empty', new Uint8Array(0))
    const dump = execFileSync('getfattr', ['-d', '-m', 'trusted', '-e', 'hex', '--absolute-names', path], {
      encoding: 'utf8',
    })
    expect(dump).toContain('trusted.bytes=0x00ff00\n')
    expect(dump).toMatch(/trusted.empty=(0x)?\n/)
  })

  it('set times with their nanoseconds, before the epoch and on symlinks themselves', async () => {
    const directory = await temporaryDirectory()
    const [file, link] = [join(directory, 'file'), join(directory, 'link')]
    writeFileSync(file, 'contents')
    symlinkSync('file', link)
    setTimes(file, -1_000_000, 123_456_789)
    setTimes(link, 1_000_000_000, 999_999_999)
    expect(lstatSync(file, {bigint: true}).mtimeNs).toBe(-999_999_876_543_211n)
    expect(lstatSync(link, {bigint: true}).mtimeNs).toBe(1_000_000_000_999_999_999n)
    expect(readFileSync(link, 'utf8')).toBe('contents')
  })

  it('do not follow a symlink for an extended attribute', async () => {
    const directory = await temporaryDirectory()
    mkdirSync(join(directory, 'target'))
    symlinkSync('target', join(directory, 'link'))
    setXattr(join(directory, 'link'), 'trusted.x', Uint8Array.of(0x79))
    const names = (path: string) =>
      execFileSync('getfattr', ['-h', '-m', 'trusted', '--absolute-names', join(directory, path)], {
        encoding: 'utf8',
      })
    expect(names('link')).toContain('trusted.x')
    expect(names('target')).toBe('')
  })
})

/** A process that listens at `path` and tells the first datagram it gets; `ready` when it listens. */
function receiveDatagram(path: string): {ready: Promise<unknown>; datagram: Promise<string>} {
  const script = `use Socket; socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; my $p = $ARGV[0]; $p =~ s/^\\@/\\0/;
    bind($s, pack_sockaddr_un($p)) or die; $| = 1; print "R"; recv($s, my $b, 65536, 0); print $b;`
  const child = spawn('perl', ['-e', script, path], {stdio: ['ignore', 'pipe', 'inherit']})
  onTestFinished(() => void child.kill('SIGKILL'))
  let said = ''
  child.stdout.on('data', bytes => {
    said += bytes
  })
  return {ready: once(child.stdout, 'data'), datagram: once(child, 'close').then(() => said)}
}

describeWith(['perl'], 'a datagram', () => {
  const check = async (path: string, message: string) => {
    const child = receiveDatagram(path)
    await child.ready
    sendDatagram(path, Buffer.from(message))
    expect(await child.datagram).toBe(`R${message}`)
  }

  it('reaches a socket in the file system', async () => {
    await check(join(await temporaryDirectory(), 'notify'), 'READY=1\nSTATUS=ünder way')
  })

  it('reaches a socket whose path is longer than an address', async () => {
    const directory = join(await temporaryDirectory(), 'd'.repeat(120))
    mkdirSync(directory)
    // The receiver's own address has no room for it either.
    symlinkSync(directory, join(directory, '..', 'short'))
    const child = receiveDatagram(join(directory, '..', 'short', 'notify'))
    await child.ready
    sendDatagram(join(directory, 'notify'), Buffer.from('x'))
    expect(await child.datagram).toBe('Rx')
  })

  it('reaches an abstract socket', async () => {
    await check(`@ctr-remote-test-${process.pid}`, 'STOPPING=1')
  })

  it('is refused when nobody is there, with the reason', async () => {
    const directory = await temporaryDirectory()
    const missing = join(directory, 'missing')
    expect(refusal(() => sendDatagram(missing, Buffer.from('x')))).toBe(
      `not-found: Cannot send a datagram to ${JSON.stringify(missing)}: ENOENT`,
    )
    expect(refusal(() => sendDatagram('@ctr-remote-test-nobody', Buffer.from('x')))).toMatch(/^unavailable: /)
    expect(refusal(() => sendDatagram(`@${'x'.repeat(200)}`, Buffer.from('x')))).toMatch(/ENAMETOOLONG$/)
    expect(refusal(() => sendDatagram(directory, Buffer.from('x')))).toMatch(/^unavailable: .*ECONNREFUSED$/)
  })
})

describe('an open file', () => {
  it('keeps its bytes when its cache is dropped', async () => {
    const path = join(await temporaryDirectory(), 'file')
    writeFileSync(path, 'contents')
    const fd = openSync(path, 'r')
    try {
      dropCache(fd)
      expect(readFileSync(path, 'utf8')).toBe('contents')
    } finally {
      closeSync(fd)
    }
  })

  it('that is closed is an error', () => {
    expect(refusal(() => dropCache(1_000_000))).toBe('internal: Cannot drop the cache of a file: EBADF')
  })
})

describe('giving memory back', () => {
  /** Resident bytes of the program's code. */
  const residentCode = () => {
    const mappings = readFileSync('/proc/self/smaps', 'latin1').split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)
    const ours = mappings.filter(text => text.includes(' r-xp ') && text.includes(process.execPath))
    return ours.reduce((sum, text) => sum + Number(/^Rss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0), 0) * 1024
  }

  it('unmaps what can be read again from programs, which go on', () => {
    expect(residentCode()).toBeGreaterThan(10 << 20)
    trimMemory()
    expect(residentCode()).toBeLessThan(10 << 20)
    expect(execFileSync('echo', ['on']).toString()).toBe('on\n')
    expect(JSON.parse(JSON.stringify({a: [1, 'x']}))).toEqual({a: [1, 'x']})
  })
})
