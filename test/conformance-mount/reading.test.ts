import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdtempSync, readFileSync, rmSync} from 'node:fs'
import {readdir} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {DatabaseSync} from 'node:sqlite'
import {expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {runCommand, runCommandOrThrow} from '../../src/lib/io/run-command.ts'
import type {FileNode} from '../../src/lib/vfs/file-tree.ts'
import {describeWith} from '../support/requires.ts'
import {describeBackends, openBackend} from './open-backend.ts'
import {createLayerBuilder, directory, pattern, type SampleLayer} from './sample-layer.ts'

const GIB = 2 ** 30

async function shell(cwd: string, command: string): Promise<string> {
  const {stdout} = await runCommandOrThrow('sh', ['-ec', command], {cwd})
  return stdout
}

/** Bytes of a file, read by another process: this one serves them. */
async function bytesAt(path: string, offset: number, length: number): Promise<string> {
  const skip = `iflag=skip_bytes,count_bytes skip=${offset} count=${length} bs=1M`
  return (await shell('/', `dd if=${path} ${skip} status=none | sha256sum`)).slice(0, 64)
}

function sha256(bytes: Uint8Array): string {
  return digestOf(bytes).slice('sha256:'.length)
}

/** Many files of all sizes, and what `sha256sum *` says of them. */
function manyFiles(): {sample: SampleLayer; sums: string} {
  const {file, layer} = createLayerBuilder()
  const children: Record<string, FileNode> = {}
  for (let index = 0; index < 200; index++) {
    children[`f${String(index).padStart(3, '0')}`] = file({size: (index * index * 37) % 300_000})
  }
  const sample = layer(directory(children))
  const sums = Object.entries(children).map(
    ([name, node]) => `${sha256(sample.data(node.dataOffset, node.size))}  ${name}`,
  )
  return {sample, sums: sums.join('\n')}
}

describeWith(['root'], 'reading lazily mounted layers', () => {
  describeBackends(kind => {
    it('finds every name of a directory of 20,000, once', async () => {
      const backend = await openBackend(kind)
      const {file, layer} = createLayerBuilder()
      const empty = file('')
      const names = Array.from({length: 20_000}, (_, index) => `${'x'.repeat(index % 60)}-${index}`)
      const children = Object.fromEntries(names.map(name => [name, {...empty}]))
      const {path} = await backend.mount(layer(directory({big: directory(children)})))
      const {stdout} = await runCommandOrThrow('ls', ['-U', join(path, 'big')])
      expect(stdout.split('\n').sort()).toEqual([...names].sort())
      // Looked up without having been listed, and missed.
      expect(await shell(path, 'stat -c %n big/-0 big/x-1 big/xxxxxxxxxxxxxxxxxxx-19999')).toContain('-19999')
      expect((await runCommand('stat', [join(path, 'big', 'none')])).exitCode).not.toBe(0)
    })

    it('reaches the far end of a file of 6 GiB, and what is behind it', async () => {
      const backend = await openBackend(kind)
      const {file, layer} = createLayerBuilder()
      const [size, before] = [6 * GIB + 12_345, file({size: 100})]
      const big = file({size})
      const sample = layer(directory({before, big, behind: file('behind it')}))
      const {path, device} = await backend.mount(sample)
      expect(await shell(path, 'stat -c %s big; cat behind')).toBe(`${size}\nbehind it`)
      for (const offset of [0, 4 * GIB - 5000, 4 * GIB + 1, size - 10_000]) {
        const length = Math.min(10_000, size - offset)
        expect(await bytesAt(join(path, 'big'), offset, 10_000), `at ${offset}`).toBe(
          sha256(pattern(big.dataOffset + offset, length)),
        )
      }
      expect(await shell(path, `tail -c +${size + 1} big | wc -c`)).toBe('0')
      // What was not asked for has not been fetched, but for readahead.
      expect(device.presentBlocks() * 4096).toBeLessThan(32 * 2 ** 20)
    })

    it('gives concurrent readers all the same bytes, and does not fetch them for each', async () => {
      const backend = await openBackend(kind)
      const {sample, sums} = manyFiles()
      const {path, device} = await backend.mount(sample)
      const orders = ['ls', 'ls -r', 'ls -U', 'ls -v']
      const outputs = await Promise.all(
        [...orders, ...orders].map(order => shell(path, `${order} | xargs sha256sum | sort -k2`)),
      )
      for (const output of outputs) expect(output).toBe(sums)
      const fetched = device.reads.reduce((sum, {length}) => sum + length, 0)
      // Readers of the same page share one READ; readahead of neighbours may overlap.
      expect(fetched).toBeLessThan(3 * sample.size)
    })

    it('maps files into memory', async () => {
      const backend = await openBackend(kind)
      const scratch = mkdtempSync(join(tmpdir(), 'ctr-remote-test-'))
      const database = new DatabaseSync(join(scratch, 'db'))
      database.exec(`CREATE TABLE numbers (n INTEGER PRIMARY KEY, text TEXT);
        WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 20000)
        INSERT INTO numbers SELECT n, printf('number %d', n) FROM counter`)
      database.close()
      const {file, layer} = createLayerBuilder()
      const {path} = await backend.mount(
        layer(directory({before: file({size: 5}), db: file(readFileSync(join(scratch, 'db')))})),
      )
      rmSync(scratch, {recursive: true})
      const program = `
        const {DatabaseSync} = require('node:sqlite')
        const database = new DatabaseSync('file:${path}/db?immutable=1', {readOnly: true})
        database.exec('PRAGMA mmap_size = 1000000000')
        console.log(database.prepare('SELECT sum(n) AS sum, max(text) AS last FROM numbers').get())`
      const {stdout} = await runCommandOrThrow(process.execPath, ['--no-warnings', '-e', program])
      expect(stdout).toContain("sum: 200010000, last: 'number 9999'")
    })

    it('fails with EIO what cannot be fetched, and reads it right once it can be', async () => {
      const backend = await openBackend(kind)
      const {file, layer} = createLayerBuilder()
      const data = file({size: 300_000})
      const sample = layer(directory({data, other: file({size: 100_000})}))
      const {path, device} = await backend.mount(sample)
      device.fail(true)
      for (const command of ['cat data', 'sha256sum data other', 'tail -c 10 data']) {
        const {exitCode, stderr} = await runCommand('sh', ['-c', `${command} > /dev/null`], {cwd: path})
        expect(exitCode, command).not.toBe(0)
        expect(stderr).toContain('Input/output error')
      }
      expect(backend.log.join('\n')).toContain('Cannot reach the registry')
      device.fail(false)
      expect((await shell(path, 'sha256sum data')).slice(0, 64)).toBe(
        sha256(sample.data(data.dataOffset, data.size)),
      )
    })

    it('serves what was fetched while nothing more can be', async () => {
      const backend = await openBackend(kind)
      const {sample, sums} = manyFiles()
      const {path, device} = await backend.mount(sample)
      await shell(path, 'sha256sum f1*')
      device.fail(true)
      // Mounted again, so that the kernel has nothing of it in memory.
      await backend.unmount('layer')
      await backend.mount(sample, 'layer', device)
      expect(sums).toContain(await shell(path, 'sha256sum f1*'))
    })

    it('lets a reader be killed that waits for data', async () => {
      const backend = await openBackend(kind, {deadlineMs: 60_000})
      const {file, layer} = createLayerBuilder()
      const sample = layer(directory({data: file({size: 10_000})}))
      const {path, device} = await backend.mount(sample)
      const {promise: asked, resolve} = Promise.withResolvers<void>()
      const read = device.read
      Object.assign(device, {
        read: async (...args: Parameters<typeof read>) => {
          resolve()
          const {signal} = args[2]
          await once(signal, 'abort')
          throw signal.reason
        },
      })
      const reader = spawn('cat', [join(path, 'data')], {stdio: 'ignore'})
      await asked
      reader.kill('SIGKILL')
      const [, signal] = await once(reader, 'exit')
      expect(signal).toBe('SIGKILL')
    })

    it('is read-only', async () => {
      const backend = await openBackend(kind)
      const {file, layer} = createLayerBuilder()
      const {path} = await backend.mount(layer(directory({data: file('data')})))
      for (const command of [
        'echo > data',
        'echo > new',
        'rm data',
        'mkdir new',
        'touch data',
        'ln data new',
      ]) {
        const {exitCode, stderr} = await runCommand('sh', ['-c', command], {cwd: path})
        expect(exitCode, command).not.toBe(0)
        expect(stderr, command).toContain('Read-only file system')
      }
      expect(await readdir(path)).toEqual(['data'])
    })
  })
})
