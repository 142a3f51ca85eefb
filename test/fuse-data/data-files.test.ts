// The lazy data files through real kernel mounts.

import {execFile, spawn} from 'node:child_process'
import {once} from 'node:events'
import {truncateSync} from 'node:fs'
import {chmod, type FileHandle, open, readdir, readFile, stat, statfs, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {expect, it, onTestFinished, vi} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openDataFileSystem} from '../../src/lib/fuse-data/data-files.ts'
import {MNT_DETACH, mount, unmount} from '../../src/lib/native/system-calls.ts'
import {PATIENTLY} from '../support/patience.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {BLOCK, createLazyFile, isMounted, listeningLog, noise, serveDataFiles} from './lazy-file.ts'

const run = promisify(execFile)
const MIB = 1 << 20

/** The bytes, or the errno, of reading a range. */
async function readRange(file: FileHandle, offset: number, size: number): Promise<Buffer | string> {
  try {
    const {bytesRead, buffer} = await file.read(Buffer.alloc(size), 0, size, offset)
    return buffer.subarray(0, bytesRead)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'no code'
  }
}

async function openForTest(path: string): Promise<FileHandle> {
  const file = await open(path)
  onTestFinished(() => file.close().catch(() => {}))
  return file
}

/** dd(1) with direct I/O, which waits for its own request and reads nothing ahead; the errno's text when it fails. */
function readDirectly(path: string, offset: number, size: number) {
  const operands = [
    `if=${path}`,
    'iflag=direct',
    `bs=${size}`,
    `skip=${offset / size}`,
    'count=1',
    'status=none',
  ]
  const child = spawn('dd', operands, {stdio: ['ignore', 'pipe', 'pipe']})
  onTestFinished(() => void child.kill('SIGKILL'))
  const parts: Buffer[] = []
  let problem = ''
  child.stdout.on('data', bytes => parts.push(bytes))
  child.stderr.on('data', bytes => {
    problem += bytes
  })
  const ended = once(child, 'close').then(([code, signal]) => {
    if (code === 0) return Buffer.concat(parts)
    return signal ?? problem.trim().replace(/^.*: /, '')
  })
  return {child, ended}
}

describeWith(['root', 'dd', 'setpriv'], 'a data file', () => {
  it('is there for each device, with its size, for root alone', async () => {
    const {files, directory, mountpoint} = await serveDataFiles()
    const path = await files.add(createLazyFile(directory, noise(3 * BLOCK), 'abc-1'))
    await files.add(createLazyFile(directory, noise(BLOCK), 'f00'))
    expect(path).toBe(join(mountpoint, 'abc-1'))
    expect((await readdir(mountpoint)).sort()).toEqual(['abc-1', 'f00'])
    expect(await stat(path)).toMatchObject({size: 3 * BLOCK, mode: 0o100400, uid: 0})
    expect(await stat(mountpoint)).toMatchObject({mode: 0o040500})
    expect(await statfs(mountpoint)).toMatchObject({bsize: 4096, files: 2})
  })

  it('is shut to everybody but root, also where its directory can be reached', async () => {
    const {files, directory, mountpoint} = await serveDataFiles()
    const file = createLazyFile(directory, noise(BLOCK))
    file.store(0, BLOCK)
    const path = await files.add(file)
    await chmod(directory, 0o755)
    const asNobody = (...command: string[]) => run('setpriv', ['--reuid=65534', '--clear-groups', ...command])
    await expect(asNobody('cat', path)).rejects.toThrow('Permission denied')
    await expect(asNobody('ls', mountpoint)).rejects.toThrow('Permission denied')
  })

  it('appears when it is added, also where its absence has been noticed', async () => {
    const {files, directory, mountpoint} = await serveDataFiles()
    await expect(stat(join(mountpoint, 'ab'))).rejects.toThrow('ENOENT')
    const path = await files.add(createLazyFile(directory, noise(BLOCK), 'ab'))
    expect(await readFile(path)).toEqual(noise(BLOCK))
    await expect(stat(join(mountpoint, 'abc'))).rejects.toThrow('ENOENT')
  })

  it('is served once, however often it is added', async () => {
    const {files, directory, mountpoint} = await serveDataFiles()
    const file = createLazyFile(directory, noise(BLOCK))
    expect(await files.add(file)).toBe(await files.add(file))
    expect(await readdir(mountpoint)).toEqual([file.name])
  })

  it('gives what its sparse file has, without a fetch', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(3 * MIB + BLOCK))
    file.store(0, file.size)
    expect(digestOf(await readFile(await files.add(file)))).toBe(digestOf(file.content))
    expect(file.fetched).toEqual([])
  })

  it('fetches what is missing, each byte once', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(5 * MIB + BLOCK))
    const path = await files.add(file)
    expect(digestOf(await readFile(path))).toBe(digestOf(file.content))
    expect(file.fetched.reduce((sum, {length}) => sum + length, 0)).toBe(file.size)
    await files.trim(file.name)
    const fetches = file.fetched.length
    expect(digestOf(await readFile(path))).toBe(digestOf(file.content))
    expect(file.fetched).toHaveLength(fetches)
  })

  it('is whole where some blocks are there and others are not', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(4 * MIB))
    for (let block = 0; block < file.size; block += 7 * BLOCK) file.store(block, BLOCK)
    expect(digestOf(await readFile(await files.add(file)))).toBe(digestOf(file.content))
  })

  it('ends where it ends', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(2 * BLOCK))
    const handle = await openForTest(await files.add(file))
    expect(await readRange(handle, BLOCK, 5 * BLOCK)).toEqual(file.content.subarray(BLOCK))
    expect(await readRange(handle, 2 * BLOCK, BLOCK)).toHaveLength(0)
  })

  it('serves many readers at once, whose fetches end in another order', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(8 * MIB))
    const held: (() => void)[] = []
    file.onFetch = () =>
      new Promise(resolve => {
        held.push(resolve)
        if (held.length < 8) return
        for (const release of held.splice(0).reverse()) release()
      })
    const path = await files.add(file)
    const parts = Array.from({length: 8}, (_, part) => readDirectly(path, part * MIB, MIB).ended)
    expect(digestOf(Buffer.concat((await Promise.all(parts)) as Buffer[]))).toBe(digestOf(file.content))
  })

  it('answers for what is there while other readers wait for the network', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(4 * MIB))
    file.store(0, MIB)
    const stuck = Promise.withResolvers<void>()
    const asked = Promise.withResolvers<void>()
    file.onFetch = () => {
      asked.resolve()
      return stuck.promise
    }
    const path = await files.add(file)
    const waiting = readDirectly(path, 2 * MIB, MIB)
    await asked.promise
    expect(await readDirectly(path, 0, MIB).ended).toEqual(file.content.subarray(0, MIB))
    stuck.resolve()
    expect(await waiting.ended).toEqual(file.content.subarray(2 * MIB, 3 * MIB))
  })

  it('takes its name and its size from a device that fits, or refuses', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(BLOCK))
    await expect(files.add({...file, name: '../x'})).rejects.toThrow(/^Cannot serve device "..\/x"/)
    await expect(files.add({...file, name: ''})).rejects.toThrow(/^Cannot serve device ""/)
    await expect(files.add({...file, size: 100})).rejects.toThrow(/of 100 bytes$/)
    await expect(files.add({...file, path: join(directory, 'gone')})).rejects.toThrow(/ENOENT/)
  })
})

describeWith(['root', 'dd'], 'a data file whose data cannot be had', () => {
  it('is an I/O error once, and right later', async () => {
    const {files, directory, said} = await serveDataFiles()
    const file = createLazyFile(directory, noise(MIB))
    file.onFetch = async () => {
      throw new Error('the registry said 500')
    }
    const handle = await openForTest(await files.add(file))
    expect(await readRange(handle, 0, BLOCK)).toBe('EIO')
    expect(said).toContain('warn cannot read lazily the registry said 500')
    file.onFetch = async () => {}
    expect(await readRange(handle, 0, MIB)).toEqual(file.content)
  })

  it('is an I/O error when the device gives too few bytes', async () => {
    const {files, directory, said} = await serveDataFiles()
    const file = createLazyFile(directory, noise(MIB))
    const path = await files.add({...file, read: async () => file.content.subarray(0, 5)})
    expect(await readDirectly(path, 0, BLOCK).ended).toBe('Input/output error')
    expect(said.join()).toContain('gave 5 bytes instead of 4096')
  })

  it('is an I/O error after the deadline, which also ends the fetch, and right later', async () => {
    const {files, directory, said} = await serveDataFiles({deadlineMs: 50})
    const file = createLazyFile(directory, noise(MIB))
    const ended = Promise.withResolvers<void>()
    file.onFetch = async (_offset, _length, signal) => {
      await once(signal, 'abort')
      ended.resolve()
      throw signal.reason
    }
    const path = await files.add(file)
    expect(await readDirectly(path, 0, BLOCK).ended).toBe('Input/output error')
    await ended.promise
    expect(said.join()).toContain('no answer within 50 ms')
    file.onFetch = async () => {}
    expect(await readDirectly(path, 0, BLOCK).ended).toEqual(file.content.subarray(0, BLOCK))
  })

  it('is an I/O error, not zeros, where its sparse file is too short', async () => {
    const {files, directory, said} = await serveDataFiles()
    const file = createLazyFile(directory, noise(MIB))
    file.store(0, MIB)
    truncateSync(file.path, MIB / 2)
    const path = await files.add(file)
    expect(await readDirectly(path, 0, BLOCK).ended).toEqual(file.content.subarray(0, BLOCK))
    expect(await readDirectly(path, MIB - BLOCK, BLOCK).ended).toBe('Input/output error')
    await expect.poll(() => said.join(), PATIENTLY).toContain('its file ends before')
  })

  it('lets a reader be killed, and nobody else', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(MIB))
    const asked = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const release = Promise.withResolvers<void>()
    file.onFetch = offset => {
      asked[offset === 0 ? 0 : 1]!.resolve()
      return release.promise
    }
    const path = await files.add(file)
    const killed = readDirectly(path, 0, BLOCK)
    const patient = readDirectly(path, BLOCK, BLOCK)
    await Promise.all(asked.map(({promise}) => promise))
    // dd writes its statistics and goes on: a signal that interrupts the read must not fail it.
    patient.child.kill('SIGUSR1')
    killed.child.kill('SIGKILL')
    expect(await killed.ended).toBe('SIGKILL')
    release.resolve()
    expect(await patient.ended).toEqual(file.content.subarray(BLOCK, 2 * BLOCK))
  })
})

describeWith(['root', 'dd', 'fincore'], "a data file's end", () => {
  it('is an I/O error for who waits, and its name is gone', async () => {
    const {files, directory, mountpoint} = await serveDataFiles()
    const file = createLazyFile(directory, noise(MIB))
    const asked = Promise.withResolvers<void>()
    file.onFetch = async (_offset, _length, signal) => {
      asked.resolve()
      await once(signal, 'abort')
      throw signal.reason
    }
    const path = await files.add(file)
    const reader = readDirectly(path, 0, BLOCK)
    await asked.promise
    await files.remove(file.name)
    expect(await reader.ended).toBe('Input/output error')
    await expect(stat(path)).rejects.toThrow('ENOENT')
    expect(await readdir(mountpoint)).toEqual([])
    await files.remove(file.name)
    await files.trim(file.name)
  })

  it('lets the same name stand for something else afterwards', async () => {
    const {files, directory} = await serveDataFiles()
    const first = createLazyFile(directory, noise(MIB, 'first'))
    const path = await files.add(first)
    expect(await readFile(path)).toEqual(first.content)
    await files.remove(first.name)
    const second = createLazyFile(directory, noise(2 * MIB, 'second'))
    await files.add(second)
    expect(digestOf(await readFile(path))).toBe(digestOf(second.content))
  })

  it('closes its sparse file, although no request comes', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(BLOCK))
    await files.add(file)
    await files.remove(file.name)
    const links = await readdir('/proc/self/fd').then(fds =>
      Promise.all(fds.map(fd => run('readlink', [`/proc/self/fd/${fd}`]).catch(() => ({stdout: ''})))),
    )
    expect(links.map(({stdout}) => stdout.trim())).not.toContain(file.path)
  })

  it('comes before that of the cache: trimming gives back the pages of both files', async () => {
    const {files, directory} = await serveDataFiles()
    const file = createLazyFile(directory, noise(4 * MIB))
    file.store(0, file.size)
    // Dirty pages cannot be given back.
    await run('sync', [file.path])
    const path = await files.add(file)
    await readFile(path)
    const cached = async (name: string) =>
      Number((await run('fincore', ['-b', '-n', '-o', 'RES', name])).stdout.trim())
    expect(await cached(path)).toBe(4 * MIB)
    // The kernel keeps a page that somebody looks at in this moment, or that another core has just touched.
    await vi.waitFor(async () => {
      await files.trim(file.name)
      expect(await cached(path)).toBe(0)
      expect(await cached(file.path)).toBe(0)
    }, PATIENTLY)
    expect(await readFile(path)).toEqual(file.content)
  })
})

/** Runs a module that serves files at `directory`, given as source, until it says `ready`. */
async function startServer(directory: string, then: string) {
  const lib = join(import.meta.dirname, '../../src/lib')
  const source = `
    import {openDataFileSystem} from '${lib}/fuse-data/data-files.ts'
    const log = {info() {}, warn() {}, debug() {}}
    const files = await openDataFileSystem({mountpoint: '${join(directory, 'mnt')}', workers: 2, log})
    console.log('ready')
    ${then}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  return child
}

describeWith(['root', 'dd'], 'a data file system', () => {
  it('leaves nothing behind when it is unmounted', async () => {
    const {files, directory, mountpoint} = await serveDataFiles()
    await files.add(createLazyFile(directory, noise(BLOCK)))
    await files.close('unmount')
    expect(isMounted(mountpoint)).toBe(false)
    expect(await readdir(mountpoint)).toEqual([])
  })

  it('lets nobody wait for ever when it is unmounted under its readers', async () => {
    const {files, directory, mountpoint} = await serveDataFiles()
    const file = createLazyFile(directory, noise(MIB))
    const asked = Promise.withResolvers<void>()
    file.onFetch = async (_offset, _length, signal) => {
      asked.resolve()
      await once(signal, 'abort')
      throw signal.reason
    }
    const path = await files.add(file)
    const handle = await openForTest(path)
    const reader = readDirectly(path, 0, BLOCK)
    await asked.promise
    await files.close('unmount')
    expect(await reader.ended).toBe('Input/output error')
    expect(await readRange(handle, 0, BLOCK)).toMatch(/^(EIO|ENOTCONN|ECONNABORTED)$/)
    expect(isMounted(mountpoint)).toBe(false)
  })

  it('notices that somebody else unmounted it, and serves anew', async () => {
    const told = Promise.withResolvers<string>()
    const {files, directory, mountpoint} = await serveDataFiles()
    const first = await files.generation()
    files.onLost(reason => told.resolve(reason))
    unmount(mountpoint)
    expect(await told.promise).toMatch(/was aborted, or unmounted by somebody else/)
    expect(await files.generation()).toBe(first + 1)
    const file = createLazyFile(directory, noise(BLOCK))
    expect(await readFile(await files.add(file))).toEqual(file.content)
  })

  it('without a keeper dies with its process, and is mounted again over what that left', async () => {
    const directory = await temporaryDirectory()
    const mountpoint = join(directory, 'mnt')
    const server = await startServer(directory, 'setInterval(() => {}, 1000)')
    server.kill('SIGKILL')
    await once(server, 'close')
    expect(isMounted(mountpoint)).toBe(true)
    const {log, said} = listeningLog()
    const files = await openDataFileSystem({mountpoint, log})
    onTestFinished(() => files.close('unmount'))
    expect(said).toContain('warn detaching a FUSE mount that nobody serves')
    const file = createLazyFile(directory, noise(BLOCK))
    expect(await readFile(await files.add(file))).toEqual(file.content)
  })

  it('keeps no process from exiting, whether by itself or by an error that nobody caught', async () => {
    for (const [then, code] of [
      ['process.exit(7)', 7],
      ['setImmediate(() => { throw undefined })', 1],
    ] as const) {
      const directory = await temporaryDirectory()
      const server = await startServer(directory, then)
      expect(await once(server, 'close')).toEqual([code, null])
      unmount(join(directory, 'mnt'))
    }
  })

  it('says what is in its way, and leaves what is not its own', async () => {
    const directory = await temporaryDirectory()
    const {log} = listeningLog()
    const mountpoint = join(directory, 'file')
    await writeFile(mountpoint, 'contents')
    await expect(openDataFileSystem({mountpoint, log})).rejects.toThrow(/EEXIST/)
    await expect(openDataFileSystem({mountpoint: join(mountpoint, 'mnt'), log})).rejects.toThrow(/ENOTDIR/)
    expect(await readFile(mountpoint, 'utf8')).toBe('contents')
  })

  it('hides what is mounted there, and uncovers it when it ends', async () => {
    const directory = await temporaryDirectory()
    mount({source: 'tmpfs', target: directory, type: 'tmpfs', flags: 0, data: ''})
    onTestFinished(() => unmount(directory, MNT_DETACH))
    await writeFile(join(directory, 'file'), 'contents')
    const {log} = listeningLog()
    const files = await openDataFileSystem({mountpoint: directory, log})
    expect(await readdir(directory)).toEqual([])
    await files.close('unmount')
    expect(await readdir(directory)).toEqual(['file'])
  })
})
