// Writes docs/commands/ from the command manifest: one page per group of commands. With --check it writes nothing, and
// fails when a page is not what it would write.

import {mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {join, resolve} from 'node:path'

const ROOT = resolve(import.meta.dirname, '..')
const DIRECTORY = join(ROOT, 'docs/commands')

interface ManifestFlag {
  readonly name: string
  readonly char?: string
  readonly aliases?: readonly string[]
  readonly type: 'boolean' | 'option'
  readonly description?: string
  readonly helpGroup?: string
  readonly helpValue?: string
  readonly default?: unknown
  readonly env?: string
  readonly multiple?: boolean
  readonly hidden?: boolean
  readonly options?: readonly string[]
}

interface ManifestArg {
  readonly name: string
  readonly description?: string
  readonly required?: boolean
  readonly multiple?: boolean
}

interface ManifestCommand {
  readonly id: string
  readonly summary?: string
  readonly description?: string
  readonly aliases: readonly string[]
  readonly examples?: readonly (string | {readonly command: string; readonly description: string})[]
  readonly args: Readonly<Record<string, ManifestArg>>
  readonly flags: Readonly<Record<string, ManifestFlag>>
  readonly hidden?: boolean
}

const manifest = JSON.parse(readFileSync(join(ROOT, 'oclif.manifest.json'), 'utf8'))
const {oclif} = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
const commands = Object.values<ManifestCommand>(manifest.commands)
  .filter(command => !command.hidden)
  .sort((a, b) => a.id.localeCompare(b.id))

const pages = writePages()
if (process.argv.includes('--check')) check(pages)
else write(pages)

/** Pages by file name. */
function writePages(): Map<string, string> {
  const groups = Map.groupBy(commands, ({id}) => (id.includes(':') ? id.split(':')[0]! : 'other'))
  const files = new Map<string, string>()
  for (const [group, members] of groups) {
    const title = group === 'other' ? 'Other commands' : `ctr-remote ${group}`
    const about = oclif.topics[group]?.description
    files.set(`${group}.md`, page(title, about, members))
  }
  files.set('README.md', index())
  return files
}

function index(): string {
  const rows = commands.map(({id, summary = ''}) => {
    const name = id.replaceAll(':', ' ')
    const file = id.includes(':') ? `${id.split(':')[0]}.md` : 'other.md'
    return `| [\`${name}\`](${file}#${anchor(id)}) | ${summary} |`
  })
  return lines(
    '# Commands',
    'Written from the commands themselves by `npm run docs`. What they have in common is in [the command line](../cli.md).',
    ['| command | what it does |', '|---|---|', ...rows].join('\n'),
    '## Global flags',
    'Every command has these; they may also stand before its name, as with `ctr`.',
    flagTable(Object.values(commands[0]!.flags).filter(flag => flag.helpGroup === 'GLOBAL')),
  )
}

function page(title: string, about: string | undefined, members: readonly ManifestCommand[]): string {
  return lines(`# ${title}`, ...(about ? [`${about}.`] : []), ...members.map(section))
}

function section(command: ManifestCommand): string {
  const {id, summary, description, aliases, examples = []} = command
  const name = id.replaceAll(':', ' ')
  const args = Object.values(command.args).map(argUsage)
  const flags = Object.values(command.flags).filter(flag => !flag.hidden)
  const groups = Map.groupBy(
    flags.filter(flag => flag.helpGroup !== 'GLOBAL'),
    flag => flag.helpGroup ?? '',
  )
  const usage = ['ctr-remote', name, ...(groups.size > 0 ? ['[flags]'] : []), ...args].join(' ')
  const described = Object.values(command.args).map(arg => `- \`${arg.name}\`: ${arg.description ?? ''}`)
  const tables = [...groups].flatMap(([group, members]) => [
    ...(group === '' ? [] : [`${group[0]}${group.slice(1).toLowerCase()} flags:`]),
    flagTable(members),
  ])
  const shown = examples.map(example => (typeof example === 'string' ? example : example.command))
  return lines(
    `## ${name}`,
    ...(summary ? [`${summary}.`] : []),
    fence(usage, 'text'),
    ...(aliases.length > 0
      ? [`Also: ${aliases.map(alias => `\`${alias.replaceAll(':', ' ')}\``).join(', ')}.`]
      : []),
    ...(description ? [description] : []),
    ...(described.length > 0 ? [described.join('\n')] : []),
    ...tables,
    ...(shown.length > 0
      ? [fence(shown.join('\n').replaceAll('<%= config.bin %>', 'ctr-remote'), 'sh')]
      : []),
  ).trimEnd()
}

function argUsage({name, required, multiple}: ManifestArg): string {
  const text = `<${name}>${multiple ? '…' : ''}`
  return required ? text : `[${text}]`
}

function flagTable(flags: readonly ManifestFlag[]): string {
  const rows = flags.map(flag => {
    const names = [
      ...(flag.char ? [`-${flag.char}`] : []),
      `--${flag.name}`,
      ...(flag.aliases ?? []).map(alias => `--${alias}`),
    ]
    const value =
      flag.type === 'option' ? ` ${flag.options?.join('|') ?? flag.helpValue ?? valueName(flag)}` : ''
    const spelled = names.map(name => `\`${name}\``).join(', ')
    const notes = [
      flag.description ?? '',
      ...(flag.multiple ? ['repeatable'] : []),
      ...(flag.env ? [`\`$${flag.env}\``] : []),
    ]
    const fallback = flag.type === 'option' && flag.default !== undefined ? `\`${flag.default}\`` : ''
    return `| ${spelled}${escapeCell(value)} | ${fallback} | ${escapeCell(notes.join('; '))} |`
  })
  return ['| flag | default | meaning |', '|---|---|---|', ...rows].join('\n')
}

function valueName({default: fallback}: ManifestFlag): string {
  return typeof fallback === 'number' ? 'N' : 'VALUE'
}

function escapeCell(text: string): string {
  return text
    .replaceAll('|', '\\|')
    .replaceAll(/<([^>]*)>/g, '`<$1>`')
    .replaceAll('\n', ' ')
}

function anchor(id: string): string {
  return id.replaceAll(':', '-')
}

function fence(text: string, language: string): string {
  return `\`\`\`${language}\n${text}\n\`\`\``
}

function lines(...blocks: readonly string[]): string {
  return `${blocks.join('\n\n')}\n`
}

function write(files: ReadonlyMap<string, string>): void {
  rmSync(DIRECTORY, {recursive: true, force: true})
  mkdirSync(DIRECTORY, {recursive: true})
  for (const [file, text] of files) writeFileSync(join(DIRECTORY, file), text)
}

function check(files: ReadonlyMap<string, string>): void {
  const there = readdirSync(DIRECTORY)
  const names = new Set([...files.keys(), ...there])
  const stale = [...names].filter(
    name => !there.includes(name) || files.get(name) !== readFileSync(join(DIRECTORY, name), 'utf8'),
  )
  if (stale.length === 0) return
  console.error(`docs/commands is out of date (${stale.join(', ')}): run npm run docs`)
  process.exitCode = 1
}
