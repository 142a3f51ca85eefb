// Every command by its words: so that running one loads that one, and nothing has to look for it.

import type {Config} from '@oclif/core/config'
import type {BaseCommand} from '../base-command.ts'

/** A command's class. */
export interface CommandClass {
  id: string
  readonly aliases: string[]
  new (argv: string[], config: Config): BaseCommand
}

/** Commands by their ids, oclif's form of their words. */
export const COMMANDS: Readonly<Record<string, () => Promise<{readonly default: CommandClass}>>> = {
  'image:check': () => import('../commands/image/check.ts'),
  'image:convert': () => import('../commands/image/convert.ts'),
  'image:explain': () => import('../commands/image/explain.ts'),
  'image:export': () => import('../commands/image/export.ts'),
  'image:get-toc-digest': () => import('../commands/image/get-toc-digest.ts'),
  'image:import': () => import('../commands/image/import.ts'),
  'image:inspect': () => import('../commands/image/inspect.ts'),
  'image:ipfs-push': () => import('../commands/image/ipfs-push.ts'),
  'image:label': () => import('../commands/image/label.ts'),
  'image:ls': () => import('../commands/image/ls.ts'),
  'image:mount': () => import('../commands/image/mount.ts'),
  'image:optimize': () => import('../commands/image/optimize.ts'),
  'image:pull': () => import('../commands/image/pull.ts'),
  'image:push': () => import('../commands/image/push.ts'),
  'image:rm': () => import('../commands/image/rm.ts'),
  'image:rpull': () => import('../commands/image/rpull.ts'),
  'image:tag': () => import('../commands/image/tag.ts'),
  'image:unmount': () => import('../commands/image/unmount.ts'),
  'image:verify': () => import('../commands/image/verify.ts'),
  'lazy:prune': () => import('../commands/lazy/prune.ts'),
  'lazy:status': () => import('../commands/lazy/status.ts'),
  'node:check': () => import('../commands/node/check.ts'),
  'node:disable': () => import('../commands/node/disable.ts'),
  'node:enable': () => import('../commands/node/enable.ts'),
  'profile:pull': () => import('../commands/profile/pull.ts'),
  'profile:push': () => import('../commands/profile/push.ts'),
  'registry:serve': () => import('../commands/registry/serve.ts'),
  run: () => import('../commands/run.ts'),
  version: () => import('../commands/version.ts'),
}

/** Other words for commands: what their classes call their aliases. */
const ALIASES: Readonly<Record<string, string>> = {
  'image:list': 'image:ls',
  'image:remove': 'image:rm',
  'image:delete': 'image:rm',
  'image:del': 'image:rm',
}

/** The id of the command of ours whose words lead `words`, the longest that there is, and the words that follow. */
export function findOwnCommand(
  words: readonly string[],
): {readonly id: string; readonly rest: readonly string[]} | undefined {
  for (let length = Math.min(words.length, 2); length > 0; length -= 1) {
    const name = words.slice(0, length).join(':')
    const id = Object.hasOwn(ALIASES, name) ? ALIASES[name]! : name
    if (Object.hasOwn(COMMANDS, id)) return {id, rest: words.slice(length)}
  }
  return undefined
}
