// The process that holds descriptors while its user restarts. Any descriptor will do; the mounts are tested elsewhere.

import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {closeSync, existsSync, fstatSync, openSync, readFileSync, statSync, writeFileSync} from 'node:fs'
import {mkdir, rmdir} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it, onTestFinished} from 'vitest'
import {openKeeper} from '../../src/lib/fuse/keeper.ts'
import {exchange} from '../../src/lib/native/system-calls.ts'
import {openFilesOf} from '../support/open-files.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {hasEnded, keeperOf} from './keeper-process.ts'

/** A keeper's directory; what it holds is dropped when the test ends, and the keeper with it. */
async function keeperDirectory(): Promise<string> {
  const directory = await temporaryDirectory()
  onTestFinished(() => {
    const pid = keeperOf(directory)
    if (pid !== undefined) process.kill(pid, 'SIGKILL')
  })
  return directory
}

function openFile(directory: string, name: string): number {
  const path = join(directory, name)
  writeFileSync(path, name)
  return openSync(path, 'r')
}

describe('a keeper', () => {
  it('gives back a descriptor with its note, as often as it is asked', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory})
    const fd = openFile(directory, 'file')
    await keeper.hold('data', fd, 'a note, größer')
    closeSync(fd)
    for (let time = 0; time < 3; time++) {
      const held = await keeper.take('data')
      expect(held?.note).toBe('a note, größer')
      expect(readFileSync(held!.fd, 'utf8')).toBe(time === 0 ? 'file' : '')
      closeSync(held!.fd)
    }
  })

  it('gives nothing where nothing is held, or where it does not run', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory: join(directory, 'new', 'directory')})
    expect(await keeper.take('data')).toBeUndefined()
    await keeper.drop('data')
    expect(keeperOf(join(directory, 'new', 'directory'))).toBeUndefined()
    const other = await openKeeper({directory})
    await other.hold('data', 0, '')
    expect(await other.take('tree')).toBeUndefined()
    await other.drop('tree')
    expect((await other.take('data'))?.note).toBe('')
  })

  it('holds several, each under its name; the last of a name counts', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory})
    for (const name of ['one', 'two', 'three']) {
      const fd = openFile(directory, name)
      await keeper.hold(name === 'three' ? 'one' : name, fd, name)
      closeSync(fd)
    }
    for (const [name, expected] of [
      ['one', 'three'],
      ['two', 'two'],
    ] as const) {
      const held = await keeper.take(name)
      expect(held?.note).toBe(expected)
      expect(readFileSync(held!.fd, 'utf8')).toBe(expected)
      closeSync(held!.fd)
    }
  })

  it('outlives who started it, and serves the next', async () => {
    const directory = await keeperDirectory()
    const lib = join(import.meta.dirname, '../../src/lib')
    const source = `
      import {openKeeper} from '${lib}/fuse/keeper.ts'
      await (await openKeeper({directory: '${directory}'})).hold('data', 0, 'from a process that is gone')
      process.kill(process.pid, 'SIGKILL')`
    const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    expect(await once(child, 'close')).toEqual([null, 'SIGKILL'])
    const pid = keeperOf(directory)!
    // In a session of its own: what ends a terminal's or a shell's processes does not end it.
    expect(readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ')[5]).toBe(String(pid))
    const held = await (await openKeeper({directory})).take('data')
    expect(held?.note).toBe('from a process that is gone')
    expect(fstatSync(held!.fd).isFIFO() || fstatSync(held!.fd).isSocket()).toBe(true)
    closeSync(held!.fd)
  })

  it('ends with the last descriptor, and the next one starts at once', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory})
    await keeper.hold('one', 0, '')
    await keeper.hold('two', 0, '')
    const pid = keeperOf(directory)!
    await keeper.drop('one')
    expect(keeperOf(directory)).toBe(pid)
    await keeper.drop('two')
    await keeper.hold('one', 0, 'again')
    expect(keeperOf(directory)).not.toBe(pid)
    expect((await keeper.take('one'))?.note).toBe('again')
  })

  it('that was killed is replaced, whatever socket it left', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory})
    await keeper.hold('data', 0, 'lost')
    const pid = keeperOf(directory)!
    process.kill(pid, 'SIGKILL')
    await hasEnded(pid)
    expect(existsSync(join(directory, 'keeper.sock'))).toBe(true)
    expect(await keeper.take('data')).toBeUndefined()
    await keeper.hold('data', 0, 'new')
    expect((await keeper.take('data'))?.note).toBe('new')
  })

  it('is one, however many start it at once', async () => {
    const directory = await keeperDirectory()
    const keepers = await Promise.all(Array.from({length: 8}, () => openKeeper({directory})))
    await Promise.all(keepers.map((keeper, index) => keeper.hold(`name-${index}`, 0, String(index))))
    for (let index = 0; index < 8; index++) {
      const held = await keepers[0]!.take(`name-${index}`)
      expect(held?.note).toBe(String(index))
      closeSync(held!.fd)
    }
  })

  it('has no descriptor but its own and those it was given, and hardly any memory', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory})
    const fd = openFile(directory, 'given')
    await keeper.hold('data', fd, '')
    closeSync(fd)
    const pid = keeperOf(directory)!
    expect(
      openFilesOf(pid)
        .filter(link => !/^\/dev\/null$|^socket:/.test(link))
        .sort(),
    ).toEqual([join(directory, 'given'), join(directory, 'keeper.lock')])
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    expect(Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1])).toBeLessThan(1024)
  })

  it('is for its user alone, at a path of any length', async () => {
    const directory = join(await keeperDirectory(), 'd'.repeat(200))
    await mkdir(directory)
    const keeper = await openKeeper({directory})
    await keeper.hold('data', 0, 'far away')
    expect(statSync(join(directory, 'keeper.sock')).mode & 0o777).toBe(0o600)
    expect((await keeper.take('data'))?.note).toBe('far away')
    await keeper.drop('data')
  })

  it('is waited for, also by who gets signals meanwhile', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory})
    await keeper.hold('data', 0, 'late')
    const pid = keeperOf(directory)!
    process.kill(pid, 'SIGSTOP')
    const script = 'for n in 1 2 3 4 5; do kill -CHLD "$0"; sleep 0.02; done; kill -CONT "$1"'
    const child = spawn('sh', ['-c', script, String(process.pid), String(pid)], {stdio: 'ignore'})
    await once(child, 'spawn')
    expect((await keeper.take('data'))?.note).toBe('late')
  })

  it('is waited for by nobody but who asked', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory})
    await keeper.hold('data', 0, 'late')
    const pid = keeperOf(directory)!
    process.kill(pid, 'SIGSTOP')
    const taking = keeper.take('data')
    // Were this thread blocked, it would never come to this.
    process.kill(pid, 'SIGCONT')
    expect((await taking)?.note).toBe('late')
  })

  it('refuses what it does not understand, and goes on', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory})
    await keeper.hold('data', 0, '')
    await expect(keeper.hold('x'.repeat(65), 0, '')).rejects.toThrow(/too short or too long/)
    await expect(keeper.hold('', 0, '')).rejects.toThrow(/too short or too long/)
    await expect(keeper.hold('data', 0, 'n'.repeat(1025))).rejects.toThrow(/the note is too long/)
    await expect(keeper.hold('data', 1_000_000, '')).rejects.toThrow(/EBADF/)
    const socket = join(directory, 'keeper.sock')
    const ask = async (message: string) => (await exchange(socket, Buffer.from(message))).bytes.toString()
    expect(await ask('Hdata')).toBe('Ethere is no descriptor')
    expect(await ask('Xdata')).toBe('Ethe message is unknown')
    expect(await ask('T')).toBe('Ethe name is too short or too long')
    // Too long for a message: it is not answered.
    await expect(ask(`T${'x'.repeat(3000)}`)).rejects.toThrow(/ECONNRESET/)
    for (let index = 0; index < 63; index++) await keeper.hold(`more-${index}`, 0, '')
    await expect(keeper.hold('too many', 0, '')).rejects.toThrow(/too many/)
    expect((await keeper.take('data'))?.note).toBe('')
  })

  it('that cannot start says why', async () => {
    const directory = await keeperDirectory()
    const keeper = await openKeeper({directory: join(directory, 'gone')})
    await rmdir(join(directory, 'gone'))
    await expect(keeper.hold('data', 0, '')).rejects.toThrow(
      'Cannot start the keeper: keeper: cannot enter the directory: No such file or directory',
    )
  })
})
