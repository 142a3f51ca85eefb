// What all commands share: the global flags, Go's way of writing flags, and a session with what they work on.

import * as Args from '@oclif/core/args'
import {Command} from '@oclif/core/command'
import {normalizeFlags} from './cli/argv.ts'
import {globalFlags} from './cli/flags.ts'
import {openSession, type Session, type SessionFlags} from './cli/session.ts'

/** A command of ctr-remote. Errors go up to `main`, which alone prints them and knows exit codes. */
export abstract class BaseCommand extends Command {
  /** With `--json` oclif prints what `run` returns, and `log` prints nothing. */
  static override enableJsonFlag = true
  static override baseFlags = globalFlags

  override async init(): Promise<void> {
    const {baseFlags, flags} = this.ctor
    this.argv = normalizeFlags(this.argv, {...baseFlags, ...flags, json: {type: 'boolean'}})
    await super.init()
  }

  /** Opens what the flags describe; the caller disposes it. */
  protected openSession(flags: SessionFlags): Promise<Session> {
    return openSession(flags, this.config.userAgent)
  }

  /** Says that the command has done its work and found something wrong: exit code 1 without an error message. */
  protected exitWithFindings(): void {
    process.exitCode = 1
  }

  /** oclif would print the error here. */
  protected override async catch(error: Error): Promise<never> {
    throw error
  }
}

/** A positional argument. oclif would read a missing one from stdin, which is nobody's wish here. */
export function word(description: string) {
  return Args.string({description, required: true, ignoreStdin: true})
}

/** As `word`, and may be left out. */
export function optionalWord(description: string) {
  return Args.string({description, ignoreStdin: true})
}

/** One positional argument or more. */
export function words(description: string) {
  return Args.string({description, required: true, multiple: true, ignoreStdin: true})
}
