// What shell scripts run: the commands in them that can be known without running them.

import type {Language, Launch, LaunchHost} from './launch.ts'

export const isShell = (name: string) => /^(ba|da|a|k|mk|z)?sh$/.test(name)

const BUILTINS = new Set(
  '[ [[ : alias bg break builtin cd continue declare echo eval exit export false fg getopts hash jobs kill let local printf pwd read readonly return set shift shopt test times trap true type typeset ulimit umask unalias unset wait'.split(
    ' ',
  ),
)
/** Words before a command that leave it one. */
const PREFIXES = new Set('! if then elif else do while until time exec command nohup {'.split(' '))
const MAX_COMMANDS = 512
/** Scripts that read scripts. */
const MAX_DEPTH = 8

export const shell: Language = async ({words, host}) => {
  const at = words.findIndex(word => !/^[-+]/.test(word))
  const hasCommand = words.slice(0, at < 0 ? undefined : at).some(word => /^-\w*c\w*$/.test(word))
  const word = words[at]
  if (word === undefined) return
  const rest = words.slice(at + 1)
  // After the text of `-c` comes the name `$0`.
  if (hasCommand) return shellText(word, {host, words: rest.slice(1)})
  const file = await host.take(word)
  if (file) await shellText(await host.text(file), {host, words: rest})
}

/** Takes what the commands of a script read; `words` are its arguments. */
export async function shellText(
  text: string,
  script: Pick<Launch, 'host' | 'words'>,
  depth = 0,
): Promise<void> {
  for (const command of commandsOf(text).slice(0, MAX_COMMANDS)) {
    const [name = '', first = ''] = command
    if (name === '.' || name === 'source') await sourced(first, script, depth)
    else if (name === '$@') await script.host.run([...script.words, ...command.slice(1)])
    else if (!BUILTINS.has(name) && !name.includes('$')) {
      await script.host.run(command.flatMap(word => (word === '$@' ? script.words : [word])))
    }
  }
}

async function sourced(
  path: string,
  script: {readonly host: LaunchHost; readonly words: readonly string[]},
  depth: number,
): Promise<void> {
  if (path === '' || path.includes('$') || depth >= MAX_DEPTH) return
  const file = await script.host.take(path)
  if (file) await shellText(await script.host.text(file), script, depth + 1)
}

/** The commands of a text as words without their quotes, in order: simple ones, wherever they are. */
export function commandsOf(text: string): string[][] {
  const commands: string[][] = []
  let command: string[] = []
  const end = () => {
    while (command.length > 0 && (PREFIXES.has(command[0]!) || /^\w+=/.test(command[0]!))) command.shift()
    if (command.length > 0) commands.push(command)
    command = []
  }
  for (const [token, word] of text.replace(/\\\n/g, ' ').matchAll(TOKEN)) {
    if (word === undefined) {
      if (!/^[ \t]|^#/.test(token)) end()
    } else command.push(unquoted(word))
  }
  end()
  return commands
}

/** Words with what is quoted in them, comments, space, and what ends commands. */
const TOKEN = /((?:[^\s;&|()`'"\\#]|\\.|'[^']*'|"(?:[^"\\]|\\[\s\S])*"|(?<=\S)#)+)|#[^\n]*|[ \t]+|[\s\S]/g

function unquoted(word: string): string {
  return word.replace(/'([^']*)'|"((?:[^"\\]|\\[\s\S])*)"|\\(.)/g, (_, single, double, escaped) =>
    String(single ?? double ?? escaped).replace(/\\(["\\$`])/g, '$1'),
  )
}
