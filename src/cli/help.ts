// Help pages, from the manifest alone.

import type {Config} from '@oclif/core/config'
import {CommandHelp, Help} from '@oclif/core/help'

/** Prints help on stdout about the command or topic that `words` name, or about the program. */
export async function showHelp(config: Config, words: readonly string[]): Promise<void> {
  await new TidyHelp(config, {hideAliasesFromRoot: true}).showHelp([...words])
}

/** Where several flags exclude each other, or need the same one, oclif leaves gaps for those that it has shown before. */
class TidyCommandHelp extends CommandHelp {
  protected override defaultUsage(): string {
    return tidyUsage(super.defaultUsage())
  }
}

class TidyHelp extends Help {
  protected override CommandHelpClass = TidyCommandHelp
}

/** `[-a | | --b]` is `[-a | --b]`, and `[-a | ]` and `[-a ]` are `[-a]`. */
export function tidyUsage(usage: string): string {
  return usage
    .replace(/\|(?:\s*\|)+/g, '|')
    .replace(/\s*\|?\s*\]/g, ']')
    .replace(/\[\s*\|\s*/g, '[')
}
