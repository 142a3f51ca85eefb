import {BaseCommand} from '../base-command.ts'
import {packageVersion} from '../cli/version.ts'

export default class Version extends BaseCommand {
  static override summary = 'Print the versions of ctr-remote and of what it runs on'

  async run(): Promise<{version: string; node: string}> {
    await this.parse(Version)
    const versions = {version: packageVersion(), node: process.version}
    this.log(`Client:\n  Version:  ${versions.version}\n  Node.js:  ${versions.node}`)
    return versions
  }
}
