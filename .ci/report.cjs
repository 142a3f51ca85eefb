// What .ci/run says about Vitest's JSON reports.
'use strict'
const {readFileSync} = require('node:fs')
const {relative} = require('node:path')

/** More than these are no accident. */
const MAX_FILES_AGAIN = 3

/** A report, or undefined where the runner broke before it wrote one. */
function readReport(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}

const failedFiles = report => report.testResults.filter(({status}) => status === 'failed')

const commands = {
  /** The test files to run again, one a line; none where too many failed, or something failed outside of the tests. */
  'failed-files'(first) {
    const files = failedFiles(readReport(first) ?? {testResults: []})
    if (files.length <= MAX_FILES_AGAIN) for (const {name} of files) console.log(relative('.', name))
  },

  /** Names what failed at first and passed alone. */
  unsteady(first) {
    for (const {name, assertionResults} of failedFiles(readReport(first))) {
      const tests = assertionResults.filter(({status}) => status === 'failed').map(({fullName}) => fullName)
      console.log(`UNSTEADY, to be mended: ${relative('.', name)}: ${tests.join('; ') || 'its set-up'}`)
    }
  },

  /** The last line: how many tests passed and failed, each failed step counted as one. */
  count(steps, firstFile, secondFile) {
    const first = readReport(firstFile)
    const last = readReport(secondFile) ?? first
    const broken = last === undefined || !last.success ? 1 : 0
    const failed = Number(steps) + Math.max(last?.numFailedTests ?? 0, broken)
    const passed =
      first === undefined ? 0 : first.numPassedTests + (last === first ? 0 : passedAgain(first, last))
    console.log(`${passed} passed, ${failed} failed`)
  },
}

/** How many of the tests that had not passed did the second time. */
function passedAgain(first, second) {
  const key = (name, {fullName}) => `${name} ${fullName}`
  const passed = new Set(
    first.testResults.flatMap(({name, assertionResults}) =>
      assertionResults.filter(({status}) => status === 'passed').map(result => key(name, result)),
    ),
  )
  return second.testResults
    .flatMap(({name, assertionResults}) =>
      assertionResults.filter(({status}) => status === 'passed').map(result => key(name, result)),
    )
    .filter(test => !passed.has(test)).length
}

const [command, ...args] = process.argv.slice(2)
commands[command](...args)
