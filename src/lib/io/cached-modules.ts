// Runs a program that the build has put into a few CommonJS files, with the code that V8 has made of them earlier: each
// file is compiled once, and not at every start.

import {mkdirSync, readFileSync, renameSync, rmSync, writeFileSync} from 'node:fs'
import {createRequire} from 'node:module'
import {basename, join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {constants, Script} from 'node:vm'

/** Node's wrapper of a CommonJS module, which the build puts around each file. */
type ModuleFunction = (
  exports: object,
  require: (specifier: string) => unknown,
  module: {exports: object},
  filename: string,
  dirname: string,
) => void

/** What stands before and after the text of a file, so that it evaluates to a `ModuleFunction`. */
export const MODULE_WRAPPER = ['(function (exports, require, module, __filename, __dirname) {', '})'] as const

interface Loaded {
  readonly script: Script
  readonly isCached: boolean
  readonly module: {exports: object}
}

/** The files of one program. */
export class CachedModules {
  readonly #loaded = new Map<string, Loaded>()
  readonly #directory: string
  readonly #otherCode: () => string | undefined
  readonly #nodeRequire: NodeJS.Require

  /**
   * `directory` has the files, which name each other relatively, and code that is believed as they are. Where it does not
   * fit, since V8 takes only its own version's, code is looked for in the directory that `otherCode` tells.
   */
  constructor(directory: string, otherCode: () => string | undefined = () => undefined) {
    this.#directory = directory
    this.#otherCode = once(otherCode)
    this.#nodeRequire = createRequire(join(directory, 'index.cjs'))
  }

  /** Runs a file unless it has run; returns what it exports. */
  load(file: string): object {
    const known = this.#loaded.get(file)
    if (known) return known.module.exports
    const compiled = this.#compile(file)
    const module = {exports: {}}
    // Before it runs: files may name each other in a circle.
    this.#loaded.set(file, {...compiled, module})
    const path = join(this.#directory, file)
    const run = compiled.script.runInThisContext() as ModuleFunction
    run(module.exports, specifier => this.#require(specifier), module, path, this.#directory)
    return module.exports
  }

  /** Whether each file that was loaded had its code. */
  get isCached(): boolean {
    return [...this.#loaded.values()].every(({isCached}) => isCached)
  }

  /** Keeps the code of what was loaded, as far as it has been compiled by now, for the next start. Throws. */
  saveCode(directory: string): void {
    mkdirSync(directory, {recursive: true, mode: 0o700})
    for (const [file, {script}] of this.#loaded) {
      const fresh = join(directory, `${file}.${process.pid}`)
      try {
        writeFileSync(fresh, withChecksum(script.createCachedData()))
        // Others read all of it or none.
        renameSync(fresh, join(directory, codeFileOf(file)))
      } finally {
        rmSync(fresh, {force: true})
      }
    }
  }

  #require(specifier: string): unknown {
    if (specifier.startsWith('.')) return this.load(basename(specifier))
    return this.#nodeRequire(specifier.startsWith('file:') ? fileURLToPath(specifier) : specifier)
  }

  #compile(file: string): {readonly script: Script; readonly isCached: boolean} {
    const filename = join(this.#directory, file)
    // The text is ASCII: one byte for each character, as V8 has it.
    const source = readFileSync(filename, 'latin1')
    const shipped = readCode(this.#directory, file)
    const attempt = shipped && compile(source, filename, shipped.code)
    if (attempt && !attempt.cachedDataRejected) return {script: attempt, isCached: true}
    const other = this.#otherCode()
    const kept = other === undefined ? undefined : readCode(other, file)
    if (kept?.isWhole()) {
      const script = compile(source, filename, kept.code)
      if (!script.cachedDataRejected) return {script, isCached: true}
    }
    return {script: compile(source, filename), isCached: false}
  }
}

function codeFileOf(file: string): string {
  return `${file}.code`
}

function compile(source: string, filename: string, cachedData?: Buffer): Script {
  const importModuleDynamically = constants.USE_MAIN_CONTEXT_DEFAULT_LOADER
  return new Script(source, {filename, importModuleDynamically, ...(cachedData ? {cachedData} : {})})
}

/** V8 looks at lengths and versions, and dies of damaged code: what a power failure may have left half written is checked. */
function withChecksum(code: Buffer): Buffer {
  const whole = Buffer.alloc(code.length + CHECKSUM_SIZE)
  code.copy(whole)
  whole.writeUInt32LE(crc32(code), code.length)
  return whole
}

/** CRC-32, at the end. */
const CHECKSUM_SIZE = 4

function readCode(directory: string, file: string): {readonly code: Buffer; isWhole(): boolean} | undefined {
  try {
    const whole = readFileSync(join(directory, codeFileOf(file)))
    const size = Math.max(0, whole.length - CHECKSUM_SIZE)
    const code = whole.subarray(0, size)
    return {code, isWhole: () => size > 0 && whole.readUInt32LE(size) === crc32(code)}
  } catch {
    return undefined
  }
}

/** Not imported above: zlib takes a while to load, and most starts do not need it. */
function crc32(bytes: Buffer): number {
  return process.getBuiltinModule('node:zlib').crc32(bytes)
}

function once<Value>(ask: () => Value): () => Value {
  let told: {readonly value: Value} | undefined
  return () => (told ??= {value: ask()}).value
}
