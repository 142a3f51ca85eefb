import {execFile} from 'node:child_process'
import {mkdir, mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {afterEach, beforeEach, describe, expect, it} from 'vitest'
import {CachedModules, MODULE_WRAPPER} from '../../src/lib/io/cached-modules.ts'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ctr-remote-modules-'))
})
afterEach(() => rm(directory, {recursive: true, force: true}))

async function write(file: string, text: string): Promise<void> {
  const [before, after] = MODULE_WRAPPER
  await writeFile(join(directory, file), `${before}\n${text}\n${after}\n`)
}

describe('modules', () => {
  it('load each other once, in a circle too, and Node’s own', async () => {
    await write(
      'a.cjs',
      `exports.name = 'a'; exports.b = require('./b.cjs'); exports.join = require('node:path').join`,
    )
    await write(
      'b.cjs',
      `exports.runs = (globalThis.runs = (globalThis.runs ?? 0) + 1); exports.a = require('./a.cjs')`,
    )
    const modules = new CachedModules(directory)
    const a = modules.load('a.cjs') as {name: string; b: {runs: number; a: object}; join: unknown}
    expect([a.name, a.b.runs, a.b.a, a.join]).toEqual(['a', 1, a, join])
    expect(modules.load('b.cjs')).toBe(a.b)
  })

  it('know their own names and places', async () => {
    await write('a.cjs', 'exports.place = [__filename, __dirname]')
    const {place} = new CachedModules(directory).load('a.cjs') as {place: string[]}
    expect(place).toEqual([join(directory, 'a.cjs'), directory])
  })
})

/** Each in a process of its own: V8 remembers what it has compiled, whatever code it is given. */
describe('code', () => {
  const SOURCE = join(import.meta.dirname, '../../src/lib/io/cached-modules.ts')
  const SAVE = 'modules.saveCode(other ?? directory)'

  /** Runs a.cjs; resolves to what it adds up, and whether there was code for it. */
  async function run(other: string | undefined, after = ''): Promise<unknown> {
    const script = `import {CachedModules} from ${JSON.stringify(SOURCE)}
      const [, directory, other] = process.argv
      const modules = new CachedModules(directory, () => other)
      const {add} = modules.load('a.cjs')
      console.log(JSON.stringify([add(2, 3), modules.isCached]))
      ${after}`
    const argv = ['--input-type=module', '-e', script, directory, ...(other === undefined ? [] : [other])]
    return JSON.parse((await promisify(execFile)(process.execPath, argv)).stdout)
  }

  beforeEach(() => write('a.cjs', 'exports.add = (a, b) => a + b'))

  it('is found beside the files', async () => {
    expect(await run(undefined, SAVE)).toEqual([5, false])
    expect(await run(undefined)).toEqual([5, true])
    expect(await readdir(directory)).toEqual(['a.cjs', 'a.cjs.code'])
  })

  it('is found in another directory where there is none beside the files', async () => {
    const other = join(directory, 'made/by/saving')
    expect(await run(other, SAVE)).toEqual([5, false])
    expect(await run(other)).toEqual([5, true])
  })

  it('is found in another directory where that beside the files is of another version', async () => {
    const other = join(directory, 'other')
    await run(undefined, SAVE)
    const code = await readFile(join(directory, 'a.cjs.code'))
    // V8's own version is in the first words.
    await writeFile(join(directory, 'a.cjs.code'), code.fill(0, 0, 16))
    expect(await run(other, SAVE)).toEqual([5, false])
    expect(await run(other)).toEqual([5, true])
  })

  it('that is damaged or cut short is not used', async () => {
    const other = join(directory, 'other')
    await run(other, SAVE)
    const code = join(other, 'a.cjs.code')
    const good = await readFile(code)
    const zeros = Buffer.from(good).fill(0, good.length / 2)
    for (const bad of [Buffer.alloc(0), Buffer.from('x'), good.subarray(0, good.length - 8), zeros]) {
      await writeFile(code, bad)
      expect(await run(other)).toEqual([5, false])
    }
    await writeFile(code, good)
    expect(await run(other)).toEqual([5, true])
  })

  it('of another text is not used', async () => {
    await run(undefined, SAVE)
    await write('a.cjs', 'exports.add = (a, b) => a + b + 100')
    expect(await run(undefined)).toEqual([105, false])
  })

  it('that cannot be saved is told, and leaves nothing', async () => {
    const other = join(directory, 'other')
    await mkdir(join(other, 'a.cjs.code'), {recursive: true})
    await expect(run(other, SAVE)).rejects.toThrow('rename')
    expect(await readdir(other)).toEqual(['a.cjs.code'])
  })
})
