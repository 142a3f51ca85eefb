// Help pages, from the manifest alone.

import type {Config} from '@oclif/core/config'
import {Help} from '@oclif/core/help'

/** Prints help on stdout about the command or topic that `words` name, or about the program. */
export async function showHelp(config: Config, words: readonly string[]): Promise<void> {
  await new Help(config, {hideAliasesFromRoot: true}).showHelp([...words])
}
