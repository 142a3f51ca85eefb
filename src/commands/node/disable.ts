import * as Flags from '@oclif/core/flags'
import {BaseCommand} from '../../base-command.ts'

export default class NodeDisable extends BaseCommand {
  static override summary = 'Put back what node enable changed on this machine'
  static override description =
    `Gives pods the snapshotter that they had, brings the kubelet's images back into it (those of which not all is here are
removed, and pulled again), puts the files back as they were, byte for byte, and stops the snapshotter's service. It refuses
while containers use lazy snapshots. What was killed can be run again. What is cached stays in the snapshotter's directory.`
  static override examples = ['<%= config.bin %> node disable']

  static override flags = {
    force: Flags.boolean({
      description: 'also while containers use lazy snapshots: they lose the files that they have not read',
    }),
    containerd: Flags.string({description: "containerd's program (default: what its unit starts)"}),
  }

  async run(): Promise<{readonly steps: readonly string[]}> {
    const {flags} = await this.parse(NodeDisable)
    const {disableNode} = await import('../../lib/node/disable-node.ts')
    const {JOURNAL_PATH} = await import('../../lib/node/node-change.ts')
    await using session = await this.openSession(flags)
    const steps: string[] = []
    const wasEnabled = await disableNode({
      containerd: {
        program: flags.containerd,
        address: flags.address,
        connectTimeoutMs: flags['connect-timeout'],
      },
      journalPath: JOURNAL_PATH,
      force: flags.force,
      onStep: step => {
        steps.push(step)
        this.log(step)
      },
      signal: session.signal,
    })
    if (!wasEnabled) this.log('nothing to do: this machine was not enabled by "node enable"')
    return {steps}
  }
}
