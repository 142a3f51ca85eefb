import * as Flags from '@oclif/core/flags'
import {BaseCommand} from '../../base-command.ts'
import {containerdServiceFlags, lazySnapshotterFlag} from '../../cli/flags.ts'
import type {EnablePlan} from '../../lib/node/enable-node.ts'

export default class NodeEnable extends BaseCommand {
  static override summary = 'Turn this machine to lazily pulled images, or put everything back'
  static override description =
    `Makes containerd-stargz-grpc a service of systemd, tells containerd of it, brings the kubelet's images into it, the pause
image first, and then has pods use it. containerd 2.x gets a file of its own in conf.d, and an "imports" line where it needs
one; the configuration of containerd 1.x is changed, and what else is in it stays. containerd is asked what it makes of it
before it is restarted; running containers stay. What fails puts everything back and says so; what was killed can be run
again. What was there before is kept in /var/lib/ctr-remote, for node disable.`
  static override examples = [
    '<%= config.bin %> node enable --dry-run',
    '<%= config.bin %> node enable',
    '<%= config.bin %> node enable --runtime-class lazy',
  ]

  static override flags = {
    'dry-run': Flags.boolean({description: 'show what would be written and done, and change nothing'}),
    'runtime-class': Flags.string({
      description: 'only for pods of this runtime class, which is made of the usual one where there is none',
      helpValue: 'NAME',
    }),
    ...lazySnapshotterFlag,
    'snapshotter-address': Flags.string({
      description: "the socket of the snapshotter's daemon",
      default: '/run/containerd-stargz-grpc/containerd-stargz-grpc.sock',
    }),
    'snapshotter-root': Flags.string({
      description: "the snapshotter's directory",
      default: '/var/lib/containerd-stargz-grpc',
    }),
    ...containerdServiceFlags,
  }

  async run(): Promise<EnablePlan> {
    const {flags} = await this.parse(NodeEnable)
    const {enableNode, planEnable} = await import('../../lib/node/enable-node.ts')
    const {JOURNAL_PATH} = await import('../../lib/node/node-change.ts')
    const {KUBERNETES} = await import('../../lib/node/missing-images.ts')
    const {findDaemon} = await import('../../cli/daemon-program.ts')
    const {hostPlatform} = await import('../../lib/oci/platform.ts')
    const {pullIntoSnapshots} = await import('../../cli/lazy-pulling.ts')
    await using session = await this.openSession({...flags, store: 'containerd', namespace: KUBERNETES})
    const {signal} = session
    const steps: string[] = []
    const options = {
      wish: {
        snapshotter: flags.snapshotter,
        address: flags['snapshotter-address'],
        root: flags['snapshotter-root'],
        runtimeClass: flags['runtime-class'],
      },
      containerd: {
        unit: flags['containerd-unit'],
        program: flags.containerd,
        configPath: flags['containerd-config'],
        address: flags.address,
        connectTimeoutMs: flags['connect-timeout'],
      },
      daemonProgram: await findDaemon(import.meta.dirname),
      journalPath: JOURNAL_PATH,
      onStep: (step: string) => {
        steps.push(step)
        this.log(step)
      },
      pull: async (ref: string) => {
        await pullIntoSnapshots(session, ref, {
          from: 'registry',
          platforms: [hostPlatform()],
          labels: {},
          snapshotter: flags.snapshotter,
          skipContentVerify: false,
          registryFlags: [],
          print: () => {},
        })
      },
      signal,
    }
    if (flags['dry-run']) {
      const plan = await planEnable(options)
      this.log([plan.diff, ...plan.steps].join('\n').trim() || 'nothing to do')
      return plan
    }
    await enableNode(options)
    if (steps.length === 0) this.log('nothing to do')
    return {diff: '', steps}
  }
}
