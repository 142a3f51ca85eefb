import {describe, expect, it} from 'vitest'
import {requiresOf} from '../../src/lib/program/node-modules.ts'
import {predictStart} from '../../src/lib/program/predict-start.ts'
import {importsOf} from '../../src/lib/program/python.ts'
import {commandsOf} from '../../src/lib/program/shell.ts'
import {elfProgram, libraryCache} from '../support/elf.ts'

type Files = Readonly<Record<string, string | Uint8Array>>

/** Files by path; `links` are symbolic links to files. */
async function predict(
  files: Files,
  words: readonly string[],
  {links = {}, env = [] as readonly string[]}: {links?: Record<string, string>; env?: readonly string[]} = {},
): Promise<string[]> {
  const find = async (asked: string) => {
    const parts: string[] = []
    for (const part of asked.split('/')) {
      if (part === '..') parts.pop()
      else if (part !== '' && part !== '.') parts.push(part)
    }
    const clean = `/${parts.join('/')}`
    const path = links[clean] ?? clean
    const contents = files[path]
    if (contents === undefined) return undefined
    const bytes = Buffer.from(contents as string)
    const read = async (offset: number, length: number) => bytes.subarray(offset, offset + length)
    return {path, size: bytes.length, read}
  }
  const found = await predictStart(find, {words, env, workingDirectory: '/app'})
  return found.map(({path}) => path)
}

const LIBC = elfProgram({})
const dynamic = (...libraries: string[]) => elfProgram({interpreter: '/lib64/ld.so', libraries})

describe('what a start reads is', () => {
  it('the program on the PATH, its loader, and its libraries with theirs', async () => {
    const files = {
      '/usr/bin/app': dynamic('libapp.so', 'libc.so.6'),
      '/usr/bin/other': dynamic('libother.so'),
      '/lib64/ld.so': elfProgram({}),
      '/usr/lib/x86_64-linux-gnu/libapp.so': dynamic('libdeep.so'),
      '/usr/lib/x86_64-linux-gnu/libc.so.6': LIBC,
      '/usr/lib/libdeep.so': LIBC,
      '/usr/lib/x86_64-linux-gnu/libother.so': LIBC,
      '/etc/passwd': 'root:x:0:0',
      '/etc/localtime': 'UTC',
      '/etc/hostname': 'not read',
    }
    expect(await predict(files, ['app', 'serve'])).toEqual([
      '/etc/passwd',
      '/usr/bin/app',
      '/lib64/ld.so',
      '/usr/lib/x86_64-linux-gnu/libapp.so',
      '/usr/lib/libdeep.so',
      '/usr/lib/x86_64-linux-gnu/libc.so.6',
      '/etc/localtime',
    ])
  })

  it('libraries where the program, the cache and the machine say, in this order', async () => {
    const app = elfProgram({libraries: ['liba.so', 'libb.so'], searchPath: '$ORIGIN/../lib'})
    const files = {
      '/opt/bin/app': app,
      '/opt/lib/liba.so': LIBC,
      '/usr/lib/liba.so': LIBC,
      '/etc/ld.so.cache': libraryCache([
        ['libb.so', '/foreign/libb.so'],
        ['libb.so', '/local/libb.so'],
      ]),
      // Of another machine: the loader passes over it.
      '/foreign/libb.so': elfProgram({bits: 32, machine: 3}),
      '/local/libb.so': LIBC,
      '/usr/lib/libb.so': LIBC,
    }
    expect(await predict(files, ['/opt/bin/app'])).toEqual([
      '/opt/bin/app',
      '/opt/lib/liba.so',
      '/etc/ld.so.cache',
      '/local/libb.so',
    ])
  })

  it('a shell script with what it runs, and what it is given', async () => {
    const files = {
      '/usr/local/bin/entry.sh':
        '#!/bin/sh\nset -e\nif [ -z "$X" ]; then\n  mkdir -p /data\nfi\n. /etc/settings\nexec "$@"\n',
      '/bin/sh': LIBC,
      '/bin/mkdir': LIBC,
      '/bin/set': 'a builtin is not run',
      '/etc/settings': 'NAME=$(hostname)',
      '/bin/hostname': LIBC,
      '/bin/server': LIBC,
    }
    expect(await predict(files, ['entry.sh', 'server', '-v'])).toEqual([
      '/usr/local/bin/entry.sh',
      '/bin/sh',
      '/bin/mkdir',
      '/etc/settings',
      '/bin/hostname',
      '/bin/server',
    ])
  })

  it('a Python program with the modules it imports, compiled where they are', async () => {
    const lib = '/usr/lib/python3.10'
    const files = {
      '/usr/bin/python3.10': LIBC,
      [`${lib}/os.py`]: 'import stat',
      [`${lib}/stat.py`]: '',
      [`${lib}/json/__init__.py`]: 'from .decoder import JSONDecoder\ndef lazy():\n    import unread\n',
      [`${lib}/json/__pycache__/__init__.cpython-310.pyc`]: 'compiled',
      [`${lib}/json/decoder.py`]: '',
      [`${lib}/unread.py`]: '',
      [`${lib}/lib-dynload/_json.cpython-310-x86_64-linux-gnu.so`]: LIBC,
      '/app/main.py': 'import json, _json\nfrom helper import thing\n',
      '/app/helper/__init__.py': '',
      '/app/helper/thing.py': '',
    }
    const links = {'/usr/bin/python3': '/usr/bin/python3.10'}
    const found = await predict(files, ['/usr/bin/env', 'python3', '-u', 'main.py'], {
      links: {...links, '/usr/bin/env': '/bin/env'},
    })
    expect(found).toEqual([])
    expect(
      await predict({...files, '/bin/env': LIBC}, ['/bin/env', 'python3', '-u', 'main.py'], {links}),
    ).toEqual([
      '/bin/env',
      '/usr/bin/python3.10',
      `${lib}/os.py`,
      `${lib}/stat.py`,
      '/app/main.py',
      `${lib}/json/__pycache__/__init__.cpython-310.pyc`,
      `${lib}/json/decoder.py`,
      `${lib}/lib-dynload/_json.cpython-310-x86_64-linux-gnu.so`,
      '/app/helper/__init__.py',
      '/app/helper/thing.py',
    ])
  })

  it('a Node.js program with the modules it requires', async () => {
    const files = {
      '/usr/bin/node': LIBC,
      '/app/package.json': '{}',
      '/app/server.js': "import web from 'web'\nconst fs = require('fs'), own = require('./own')\n",
      '/app/own/index.js': "require('../data.json')",
      '/app/data.json': '{}',
      '/app/node_modules/web/package.json': '{"exports": {".": {"require": "./cjs.js"}}}',
      '/app/node_modules/web/cjs.js': "require('old')",
      '/app/node_modules/old/package.json': '{"main": "lib/main"}',
      '/app/node_modules/old/lib/main.js': '',
      '/app/node_modules/unused/index.js': '',
    }
    expect(await predict(files, ['node', '--no-warnings', 'server.js'])).toEqual([
      '/usr/bin/node',
      '/app/server.js',
      '/app/package.json',
      '/app/node_modules/web/cjs.js',
      '/app/node_modules/web/package.json',
      '/app/node_modules/old/lib/main.js',
      '/app/node_modules/old/package.json',
      '/app/own/index.js',
      '/app/data.json',
    ])
  })

  it('the same every time, and ends, where files name each other in circles', async () => {
    const files = {
      '/bin/a': '#!/bin/b\na; b; a x; b "$@"; exec "$@" "$@"',
      '/bin/b': '#!/bin/a\n. /bin/b',
      '/bin/sh': dynamic('liba.so'),
      '/usr/lib/liba.so': dynamic('libb.so'),
      '/usr/lib/libb.so': dynamic('liba.so', '/usr/lib/libb.so'),
      '/app/x.sh': '. ./x.sh; sh x.sh "$@" y; sh ./x.sh',
    }
    for (const words of [['a', 'b'], ['sh', 'x.sh', 'a'], [], ['']]) {
      const first = await predict(files, words)
      expect(await predict(files, words)).toEqual(first)
      expect(new Set(first).size).toBe(first.length)
    }
  })
})

describe('of a text', () => {
  it('the commands of a shell are known', () => {
    const text = 'A=1 B=\'x y\' run "a b" # no\nif ! test -f x; then x=$(date +%s) || other\\\n  last; fi'
    expect(commandsOf(text)).toEqual([
      ['run', 'a b'],
      ['test', '-f', 'x'],
      ['date', '+%s'],
      ['other', 'last'],
      ['fi'],
    ])
  })

  it('the imports of Python are known', () => {
    const text = [
      '"""\nimport documented\n"""',
      'import a, b.c as d',
      'try:\n    from . import near\nexcept ImportError:\n    from ..up import (\n        one,\n        two,\n    )',
      'def f():\n    import lazy\nimport last',
    ].join('\n')
    expect(importsOf(text, 'pkg.sub')).toEqual([
      ...['a', 'b.c', 'pkg.sub', 'pkg.sub.near', 'pkg.up', 'pkg.up.one', 'pkg.up.two', 'last'],
    ])
  })

  it('the modules of Node.js are known', () => {
    const text =
      "import a from 'a'\nimport 'b'\nimport {\n  c,\n} from \"c\"\nconst d = require('d')\nexport * from './e'\n"
    expect(requiresOf(text)).toEqual(['a', 'b', 'c', 'd', './e'])
  })

  it.each([
    ['quotes', `"'\\`.repeat(20_000)],
    ['empty lines', '\n'.repeat(300_000)],
    ['imports that do not end', 'from a import (\n'.repeat(20_000)],
    ['braces', '} '.repeat(100_000)],
    ['open texts', '"""a\'\'\'b'.repeat(30_000)],
    ['dots', `from ${'.'.repeat(200_000)} a`],
    ['gaps', `from ${'\t '.repeat(100_000)}x`],
    ['spaces', `import a${' '.repeat(100_000)}`.repeat(3)],
  ])('hostile %s take no longer than others', (_, text) => {
    commandsOf(text)
    importsOf(text, '')
    requiresOf(text)
  })
})
