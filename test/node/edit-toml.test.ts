// Keys set in files that people wrote, and taken away again: nothing else of the text changes.

import {parse} from 'smol-toml'
import {describe, expect, it} from 'vitest'
import {editToml, rawTomlValue, type TomlEdit} from '../../src/lib/node/edit-toml.ts'

const CRI = 'io.containerd.grpc.v1.cri'
const SNAPSHOTTER = ['plugins', CRI, 'containerd', 'snapshotter']
const set = (path: readonly string[], value = '"stargz"'): TomlEdit => ({path, value})

/** What people write, and what becomes of it. */
const CASES: readonly [name: string, before: string, edit: TomlEdit, after: string][] = [
  ['an empty file', '', set(SNAPSHOTTER), `[plugins."${CRI}".containerd]\n  snapshotter = "stargz"\n`],
  [
    'a value with a comment behind it',
    `[plugins."${CRI}".containerd]\n\tsnapshotter="overlayfs" # ours\n`,
    set(SNAPSHOTTER),
    `[plugins."${CRI}".containerd]\n\tsnapshotter="stargz" # ours\n`,
  ],
  [
    'a table with other keys, tabs and a comment at its end',
    `[plugins.'${CRI}'.containerd]\n\tdefault_runtime_name = 'runc'\n\t# snapshotter = "x"\n\n# next\n[debug]\n`,
    set(SNAPSHOTTER),
    `[plugins.'${CRI}'.containerd]\n\tdefault_runtime_name = 'runc'\n\tsnapshotter = "stargz"\n\t# snapshotter = "x"\n\n# next\n[debug]\n`,
  ],
  [
    'a header without keys, with a comment',
    `[plugins."${CRI}".containerd] # here\n`,
    set(SNAPSHOTTER),
    `[plugins."${CRI}".containerd] # here\n  snapshotter = "stargz"\n`,
  ],
  [
    'a header as the last thing of a file without a last newline',
    `  [plugins."${CRI}".containerd]`,
    set(SNAPSHOTTER),
    `  [plugins."${CRI}".containerd]\n    snapshotter = "stargz"`,
  ],
  [
    'a file without a last newline',
    'version = 2',
    set(SNAPSHOTTER),
    `version = 2\n\n[plugins."${CRI}".containerd]\n  snapshotter = "stargz"\n`,
  ],
  [
    'Windows line ends',
    `version = 2\r\n\r\n[plugins."${CRI}".containerd]\r\n  x = 1\r\n[debug]\r\n`,
    set(SNAPSHOTTER),
    `version = 2\r\n\r\n[plugins."${CRI}".containerd]\r\n  x = 1\r\n  snapshotter = "stargz"\r\n[debug]\r\n`,
  ],
  [
    'Windows line ends, and no such table',
    'version = 2\r\n',
    set(SNAPSHOTTER),
    `version = 2\r\n\r\n[plugins."${CRI}".containerd]\r\n  snapshotter = "stargz"\r\n`,
  ],
  [
    'a byte order mark',
    '\uFEFF# ours\n[debug]\n',
    set(['imports'], '["a"]'),
    '\uFEFFimports = ["a"]\n# ours\n[debug]\n',
  ],
  [
    'keys at the top',
    '# a\nversion = 2\n# b\n[debug]\n',
    set(['imports'], '["a"]'),
    '# a\nversion = 2\nimports = ["a"]\n# b\n[debug]\n',
  ],
  [
    'an inline table',
    `[plugins]\n"${CRI}" = { containerd = { default_runtime_name = "runc" } } # x\n`,
    set(SNAPSHOTTER),
    `[plugins]\n"${CRI}" = { containerd = { default_runtime_name = "runc", snapshotter = "stargz" } } # x\n`,
  ],
  [
    'an inline table two above',
    `[plugins]\n"${CRI}" = { sandbox_image = "p" }\n`,
    set(SNAPSHOTTER),
    `[plugins]\n"${CRI}" = { sandbox_image = "p", containerd.snapshotter = "stargz" }\n`,
  ],
  [
    'an empty inline table',
    'proxy_plugins = {}\n',
    set(['proxy_plugins', 'stargz', 'type'], '"snapshot"'),
    'proxy_plugins = { stargz.type = "snapshot" }\n',
  ],
  [
    'dotted keys',
    `[plugins."${CRI}"]\n  containerd.default_runtime_name = "runc"\n  sandbox_image = "p"\n`,
    set(SNAPSHOTTER),
    `[plugins."${CRI}"]\n  containerd.default_runtime_name = "runc"\n  containerd.snapshotter = "stargz"\n  sandbox_image = "p"\n`,
  ],
  [
    'dotted keys from the top',
    `plugins."${CRI}".containerd.default_runtime_name = "runc"\n`,
    set(SNAPSHOTTER),
    `plugins."${CRI}".containerd.default_runtime_name = "runc"\nplugins."${CRI}".containerd.snapshotter = "stargz"\n`,
  ],
  [
    'a table that only its children name',
    `[plugins."${CRI}".containerd.runtimes.runc]\n  runtime_type = "io.containerd.runc.v2"\n`,
    set(SNAPSHOTTER),
    `[plugins."${CRI}".containerd.runtimes.runc]\n  runtime_type = "io.containerd.runc.v2"\n\n[plugins."${CRI}".containerd]\n  snapshotter = "stargz"\n`,
  ],
  [
    'headers in strings of several lines, and in comments',
    `a = """\n[plugins."${CRI}".containerd]\nsnapshotter = "no"\n"""\n# [plugins."${CRI}".containerd]\n[plugins."${CRI}".containerd]\n  b = 1\n`,
    set(SNAPSHOTTER),
    `a = """\n[plugins."${CRI}".containerd]\nsnapshotter = "no"\n"""\n# [plugins."${CRI}".containerd]\n[plugins."${CRI}".containerd]\n  b = 1\n  snapshotter = "stargz"\n`,
  ],
  [
    'an array of several lines before it',
    `[plugins."${CRI}".containerd]\n  list = [ # x\n    "]",\n  ]\n`,
    set(SNAPSHOTTER),
    `[plugins."${CRI}".containerd]\n  list = [ # x\n    "]",\n  ]\n  snapshotter = "stargz"\n`,
  ],
  [
    'other proxy plugins',
    '[proxy_plugins]\n  [proxy_plugins.soci]\n    type = "snapshot"\n    address = "/run/soci.sock"\n',
    set(['proxy_plugins', 'stargz', 'type'], '"snapshot"'),
    '[proxy_plugins]\n  [proxy_plugins.soci]\n    type = "snapshot"\n    address = "/run/soci.sock"\n\n[proxy_plugins.stargz]\n  type = "snapshot"\n',
  ],
]

describe('a key of a TOML file', () => {
  it.each(CASES)('is set in %s', (_, before, edit, after) => {
    expect(editToml(before, [edit])).toBe(after)
    // Twice is once.
    expect(editToml(after, [edit])).toBe(after)
    expect(rawTomlValue(after, edit.path)).toBe(edit.value)
  })

  it.each(CASES)('that was set in %s is taken away, or gets its value again', (_, before, edit, after) => {
    const value = rawTomlValue(before, edit.path)
    const back = editToml(after, [{...edit, value}])
    expect(rawTomlValue(back, edit.path)).toBe(value)
    if (!before.includes('{}') && before.endsWith('\n')) expect(back).toBe(before)
    else expect(withoutEmpty(parse(back))).toEqual(withoutEmpty(parse(before)))
  })

  it.each([
    ['is an array of tables', '[[proxy_plugins]]\nname = "x"\n'],
    ['is no table', 'proxy_plugins = 1\n'],
    ['is no TOML', '[proxy_plugins\n'],
    ['says a key twice', 'a = 1\na = 2\n'],
  ])('is not set where the file %s', (_, text) => {
    expect(() => editToml(text, [set(['proxy_plugins', 'stargz', 'type'])])).toThrow(
      expect.objectContaining({code: 'failed-precondition'}),
    )
  })

  it('that is not there is not taken away', () => {
    expect(editToml('a = 1 # x\n', [{path: ['b'], value: undefined}])).toBe('a = 1 # x\n')
  })
})

function withoutEmpty(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  const kept = Object.entries(value)
    .map(([key, part]) => [key, withoutEmpty(part)] as const)
    .filter(([, part]) => typeof part !== 'object' || Object.keys(part!).length > 0)
  return Object.fromEntries(kept)
}
