// The documents: links lead somewhere, and nothing in the project speaks of the machine it was written on.

import {execFileSync} from 'node:child_process'
import {existsSync, readFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {describe, expect, test} from 'vitest'

const root = join(import.meta.dirname, '..')
// Files that are about to be committed count, ignored ones do not.
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], {
  cwd: root,
})
  .toString()
  .split('\0')
  .filter(file => file !== '' && existsSync(join(root, file)))

describe('documents', () => {
  const documents = files.filter(file => file.endsWith('.md'))

  test.each(documents)('every link in %s leads to something', file => {
    expect(brokenLinks(file)).toEqual([])
  })

  test('the index of docs/ names every document there', () => {
    const index = readFileSync(join(root, 'docs/README.md'), 'utf8')
    const missing = documents
      .filter(file => /^docs\/[^/]+\.md$/.test(file) && file !== 'docs/README.md')
      .filter(file => !index.includes(`(${file.slice('docs/'.length)}`))
    expect(missing).toEqual([])
  })

  test('no file names a path that exists on one machine only', () => {
    const personal = /(?:^|[\s"'`(=:])\/(?:work|farm|home\/[a-z]+|Users\/[A-Za-z]+)\//m
    const naming = files.filter(file => /\.(?:md|ts|js|json|sh|c|h|toml)$|^bin\/|^\.ci\//.test(file))
    expect(naming.filter(file => personal.test(readFileSync(join(root, file), 'utf8')))).toEqual([])
  })
})

/** Links of a Markdown file that lead nowhere: to a missing file, or to a heading that its file lacks. */
function brokenLinks(file: string): string[] {
  const links = [...withoutCode(readFileSync(join(root, file), 'utf8')).matchAll(/\]\(\s*<?([^)\s>]+)/g)]
  return links.map(([, link]) => link!).filter(link => !isExternal(link) && !resolves(file, link))
}

function resolves(file: string, link: string): boolean {
  const [path, fragment] = link.split('#') as [string, string | undefined]
  const target = path === '' ? join(root, file) : join(root, dirname(file), decodeURI(path))
  if (!existsSync(target)) return false
  return fragment === undefined || !target.endsWith('.md') || headings(target).has(fragment)
}

/** Anchors that GitHub gives a file's headings. */
function headings(path: string): Set<string> {
  const lines = withoutCode(readFileSync(path, 'utf8'), {keepInline: true}).matchAll(
    /^#{1,6}\s+(.*?)\s*#*$/gm,
  )
  return new Set([...lines].map(([, heading]) => anchorOf(heading!)))
}

function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-')
}

function isExternal(link: string): boolean {
  return /^[a-z][a-z0-9+.-]*:/i.test(link)
}

function withoutCode(text: string, options: {readonly keepInline?: boolean} = {}): string {
  const prose = text.replace(/^(```|~~~)[\s\S]*?^\1/gm, '')
  return options.keepInline ? prose : prose.replace(/`[^`\n]*`/g, '')
}
