// The code that opens layers, built with AddressSanitizer and UBSan, on a fixed number of changed inputs; for hours, see
// docs/native.md. And on inputs as they are, both parsers: `CORPUS=DIR npx vitest run test/native/fuzz.test.ts` takes those
// that libFuzzer has found, too.

import {cpSync, readdirSync, readFileSync, writeFileSync} from 'node:fs'
import {join, resolve} from 'node:path'
import {execa} from 'execa'
import {expect, it} from 'vitest'
import {parseWithBoth} from '../support/both-parsers.ts'
import {corpusInputs, hostileInputs, taskOfInput} from '../support/fuzz-inputs.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const NATIVE = resolve(import.meta.dirname, '../../native')
const CORPUS = join(NATIVE, 'fuzz/corpus')
const RUNS = 50_000

describeWith(['cc', 'make'], 'opening layers under sanitizers', () => {
  it('survives changed TOCs, and what it gives can be used', async () => {
    await execa('make', ['-s', '-C', NATIVE, 'build/fuzz-open-layer'])
    const directory = await temporaryDirectory()
    const inputs = join(directory, 'inputs')
    cpSync(CORPUS, inputs, {recursive: true})
    for (const [name, bytes] of hostileInputs()) writeFileSync(join(inputs, name), bytes)
    const count = readdirSync(inputs).length
    const fuzz = await execa(join(NATIVE, 'build/fuzz-open-layer'), [inputs, String(RUNS)], {
      cwd: directory,
      reject: false,
      all: true,
    })
    expect(fuzz.all).toBe(`${RUNS} runs of ${count} inputs`)
    expect(fuzz.exitCode).toBe(0)
  })
})

it('the corpus has a TOC of every format, and both parsers agree on all of it', async () => {
  expect(readdirSync(CORPUS)).toEqual(expect.arrayContaining([...(await corpusInputs()).keys()]))
  for (const directory of [CORPUS, process.env.CORPUS ?? []].flat()) {
    for (const name of readdirSync(directory)) {
      await parseWithBoth(taskOfInput(readFileSync(join(directory, name)), name))
    }
  }
})
