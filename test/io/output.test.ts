import {type ChildProcess, spawn, spawnSync} from 'node:child_process'
import {once} from 'node:events'
import {chmod, chown, link, lstat, mkdir, readdir, readFile, stat, symlink, writeFile} from 'node:fs/promises'
import {createServer} from 'node:net'
import {join} from 'node:path'
import {buffer, text} from 'node:stream/consumers'
import {describe, expect, it} from 'vitest'
import {findOutput, openOutput, writeOutput} from '../../src/lib/io/output.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const BYTES = Buffer.from('new content\n')

describe('a plain file', () => {
  it('is made, and nothing stays beside it', async () => {
    const directory = await temporaryDirectory()
    await writeOutput(join(directory, 'file'), BYTES)
    expect(await readFile(join(directory, 'file'))).toEqual(BYTES)
    expect(await readdir(directory)).toEqual(['file'])
  })

  it('keeps its old content until the new one is whole', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'file')
    await writeFile(path, 'old')
    {
      await using output = await openOutput(await findOutput(path))
      await output.write(BYTES)
    }
    expect(await readFile(path, 'utf8')).toBe('old')
    expect(await readdir(directory)).toEqual(['file'])
  })

  it('keeps its mode', async () => {
    const path = join(await temporaryDirectory(), 'file')
    await writeFile(path, 'old')
    for (const mode of [0o600, 0o640, 0o777]) {
      await chmod(path, mode)
      await writeOutput(path, BYTES)
      expect((await stat(path)).mode & 0o7777).toBe(mode)
    }
  })

  it('is found through links, also through one to a file that is not there yet', async () => {
    const directory = await temporaryDirectory()
    await mkdir(join(directory, 'deep'))
    await symlink('deep', join(directory, 'folder'))
    await symlink('../target', join(directory, 'deep/second'))
    await symlink('folder/second', join(directory, 'first'))
    for (const content of ['made', 'replaced']) {
      await writeOutput(join(directory, 'first'), content)
      expect((await lstat(join(directory, 'first'))).isSymbolicLink()).toBe(true)
      expect((await lstat(join(directory, 'target'))).isFile()).toBe(true)
      expect(await readFile(join(directory, 'target'), 'utf8')).toBe(content)
    }
  })

  it('cannot be a directory, be in none, or be at the end of a circle', async () => {
    const directory = await temporaryDirectory()
    await symlink('circle', join(directory, 'circle'))
    await expect(findOutput(directory)).rejects.toMatchObject({code: 'invalid-argument'})
    await expect(findOutput(join(directory, 'none/file'))).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining(`there is no directory "${directory}/none"`),
    })
    await expect(findOutput(join(directory, 'circle'))).rejects.toMatchObject({code: 'invalid-argument'})
  })
})

describeWith(['root', 'mknod'], 'what only root can set up', () => {
  it('a file keeps its owner', async () => {
    const path = join(await temporaryDirectory(), 'file')
    await writeFile(path, 'old', {mode: 0o600})
    await chown(path, 1234, 5678)
    await writeOutput(path, BYTES)
    expect(await stat(path)).toMatchObject({uid: 1234, gid: 5678, mode: 0o100600, size: BYTES.length})
  })

  it('a file of somebody else that we may write to, in a directory that is not ours, keeps its owner too', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'file')
    await writeFile(path, 'old, and longer than the new content')
    await chmod(path, 0o666)
    await chown(path, 1234, 5678)
    await chmod(directory, 0o755)
    const script = `
      process.setgroups([]); process.setgid(4321); process.setuid(4321)
      const {writeOutput} = await import(${JSON.stringify(join(import.meta.dirname, '../../src/lib/io/output.ts'))})
      await writeOutput(${JSON.stringify(path)}, 'new')`
    // Modules are loaded as root, whose checkout others need not be able to read.
    const loaded = script
      .replace(/^.*import\(.*$/m, '')
      .replace('\n', `\n${script.match(/^.*import\(.*$/m)![0]}\n`)
    const {status, stderr} = spawnSync(process.execPath, ['--input-type=module', '-e', loaded], {
      encoding: 'utf8',
    })
    expect({status, stderr}).toEqual({status: 0, stderr: ''})
    expect(await readFile(path, 'utf8')).toBe('new')
    expect(await stat(path)).toMatchObject({uid: 1234, gid: 5678, mode: 0o100666})
  })

  it('a device is written to, and stays a device', async () => {
    const path = join(await temporaryDirectory(), 'null')
    expect(spawnSync('mknod', [path, 'c', '1', '3']).status).toBe(0)
    await link(path, `${path}-too`)
    await writeOutput(path, BYTES)
    const device = await lstat(path)
    expect(device.isCharacterDevice()).toBe(true)
    expect(device.nlink).toBe(2)
  })
})

describe('what is no plain file', () => {
  it('a named pipe is written to, as soon as somebody reads', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'pipe')
    spawnSync('mkfifo', [path])
    const writing = writeOutput(path, Buffer.alloc(300_000, 1))
    const reader = spawn('cat', [path], {stdio: ['ignore', 'pipe', 'inherit']})
    expect((await buffer(reader.stdout)).length).toBe(300_000)
    await writing
    expect((await lstat(path)).isFIFO()).toBe(true)
  })

  it('a named pipe that nobody reads is waited for no longer than the signal lets', async () => {
    const path = join(await temporaryDirectory(), 'pipe')
    spawnSync('mkfifo', [path])
    const abort = new AbortController()
    const writing = writeOutput(path, BYTES, {signal: abort.signal})
    abort.abort()
    await expect(writing).rejects.toThrow()
  })

  it('a socket is connected to', async () => {
    const path = join(await temporaryDirectory(), 'socket')
    const received = Promise.withResolvers<Buffer>()
    const server = createServer(connection => received.resolve(buffer(connection))).listen(path)
    await once(server, 'listening')
    await writeOutput(path, BYTES)
    expect(await received.promise).toEqual(BYTES)
    server.close()
  })
})

describe('descriptors of the program', () => {
  const SOURCE = join(import.meta.dirname, '../../src/lib/io/output.ts')
  /** A program that writes to `path`; Node gives it sockets for streams. */
  const write = (path: string, stdio: ('pipe' | 'ignore' | number)[]): ChildProcess => {
    const script = `const {writeOutput} = await import(${JSON.stringify(SOURCE)})
      await writeOutput(${JSON.stringify(path)}, 'x'.repeat(300_000))`
    return spawn(process.execPath, ['--input-type=module', '-e', script], {stdio})
  }

  for (const [path, index] of [
    ['/dev/stdout', 1],
    ['/proc/self/fd/1', 1],
    ['/dev/fd/2', 2],
    ['/dev/fd/3', 3],
  ] as const) {
    it(`${path} is written to where it is a socket`, async () => {
      const child = write(path, ['ignore', 'pipe', 'pipe', 'pipe'])
      const [received] = await Promise.all([text(child.stdio[index] as never), once(child, 'exit')])
      expect(received.length).toBe(300_000)
    })
  }

  it('a file that the shell has opened is written to where the shell left off, and not replaced', async () => {
    const path = join(await temporaryDirectory(), 'file')
    const script = `echo before; ${JSON.stringify(process.execPath)} --input-type=module -e '
      const {writeOutput} = await import(${JSON.stringify(SOURCE)})
      await writeOutput("/dev/stdout", "written\\n")'; echo after`
    spawnSync('sh', ['-c', `(${script}) > "$0"`, path], {stdio: 'inherit'})
    expect(await readFile(path, 'utf8')).toBe('before\nwritten\nafter\n')
  })
})
