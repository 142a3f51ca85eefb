// Writes native/fuzz/corpus anew: node test/native/write-fuzz-corpus.ts. To be done when writers or TOCs change; what
// fuzzing has found stays beside it, under other names.

import {mkdirSync, writeFileSync} from 'node:fs'
import {join, resolve} from 'node:path'
import {corpusInputs} from '../support/fuzz-inputs.ts'

const directory = resolve(import.meta.dirname, '../../native/fuzz/corpus')
mkdirSync(directory, {recursive: true})
for (const [name, bytes] of await corpusInputs()) writeFileSync(join(directory, name), bytes)
