import {readdirSync} from 'node:fs'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {COMMANDS, findOwnCommand} from '../../src/cli/command-table.ts'

describe('the table of commands', () => {
  it('has every file of src/commands', () => {
    const files = readdirSync(join(import.meta.dirname, '../../src/commands'), {
      recursive: true,
      encoding: 'utf8',
    })
    const ids = files
      .filter(name => name.endsWith('.ts'))
      .map(name => name.slice(0, -'.ts'.length).replace('/', ':'))
    expect(Object.keys(COMMANDS).sort()).toEqual(ids.sort())
  })

  it('finds each command by every name that its class has', async () => {
    for (const [id, load] of Object.entries(COMMANDS)) {
      const {aliases} = (await load()).default
      for (const name of [id, ...aliases])
        expect(findOwnCommand([...name.split(':'), 'x'])).toEqual({id, rest: ['x']})
    }
  })

  const check = (line: string, id: string | undefined, rest: readonly string[] = []) =>
    it(`"${line}" is ${id}`, () => {
      expect(findOwnCommand(line.split(' '))).toEqual(id === undefined ? undefined : {id, rest})
    })
  check('image list -q', 'image:ls', ['-q'])
  check('run --rm image name', 'run', ['--rm', 'image', 'name'])
  check('image', undefined)
  check('image toString', undefined)
  check('constructor', undefined)
})
