// What all commands share: the global flags, Go's way of writing flags, cancellation.

import {Command} from '@oclif/core/command'
import * as Flags from '@oclif/core/flags'
import {interruptSignal} from './cli/interrupts.ts'

/** A command of ctr-remote. Errors go up to `main`, which alone prints them and knows exit codes. */
export abstract class BaseCommand extends Command {
  static override enableJsonFlag = true

  static override baseFlags = {
    debug: Flags.boolean({helpGroup: 'GLOBAL', description: 'print stack traces'}),
  }

  protected readonly signal: AbortSignal = interruptSignal

  protected override async catch(error: Error): Promise<never> {
    throw error
  }
}
