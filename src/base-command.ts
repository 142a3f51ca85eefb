// What all commands share: the global flags, Go's way of writing flags, and a session with what they work on.

import * as Args from '@oclif/core/args'
import {Command} from '@oclif/core/command'
import {normalizeFlags} from './cli/argv.ts'
import {globalFlags} from './cli/flags.ts'
import {openSession, type Session} from './cli/session.ts'
import type {SessionFlags} from './cli/session-flags.ts'

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

  /** Parses the command line, runs, and prints what came of it where `--json` asks for that. */
  runToEnd(): Promise<unknown> {
    return this._run()
  }

  /** Opens what the flags describe; the caller disposes it. */
  protected openSession(flags: SessionFlags): Promise<Session> {
    return openSession(flags, this.config.userAgent)
  }

  /** Where results are printed: on stderr, when stdout is what an archive is written to. */
  private results: NodeJS.WriteStream = process.stdout

  /** Results go to stderr when one of `paths`, which will be written to, leads to stdout. */
  protected async keepOffStdout(paths: readonly string[]): Promise<void> {
    const {leadToStdout} = await import('./cli/standard-streams.ts')
    if (await leadToStdout(paths)) this.results = process.stderr
  }

  override log(message = ''): void {
    if (!this.jsonEnabled()) this.results.write(`${message}\n`)
  }

  override logJson(json: unknown): void {
    this.results.write(`${JSON.stringify(json, null, 2)}\n`)
  }

  /** Says that the command has done its work and found something wrong: exit code 1 without an error message. */
  protected exitWithFindings(): void {
    process.exitCode = 1
  }

  /** oclif would print the error here. What is wrong with the command line is its own, in several lines. */
  protected override async catch(error: Error): Promise<never> {
    const {explainUsage, isUsageError} = await import('./cli/usage.ts')
    throw isUsageError(error) ? explainUsage(error, {...this.ctor, id: this.id ?? ''}) : error
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
