import * as Flags from '@oclif/core/flags'
import {BaseCommand} from '../../base-command.ts'
import {containerdServiceFlags, lazySnapshotterFlag} from '../../cli/flags.ts'
import type {Finding} from '../../lib/node/finding.ts'

export default class NodeCheck extends BaseCommand {
  static override summary =
    'Look whether this machine is ready for lazily pulled images, and say what is missing'
  static override description =
    `Looks at the kernel, at containerd and its configuration as containerd itself reads it, at the snapshotter's daemon, at the
disk, and at the kubelet's images: those whose layers are in another snapshotter only keep pods from starting, the pause
image first; and at Docker, where it is. Each finding says what breaks, and what mends it. Nothing is changed. Exits with 1 when there is a problem.`
  static override examples = ['<%= config.bin %> node check', '<%= config.bin %> node check --json']

  static override flags = {
    ...lazySnapshotterFlag,
    'snapshotter-address': Flags.string({
      description:
        "the socket of the snapshotter's daemon, where containerd's configuration does not name it",
      default: '/run/containerd-stargz-grpc/containerd-stargz-grpc.sock',
    }),
    'snapshotter-root': Flags.string({
      description: "the snapshotter's directory, where containerd's configuration does not name it",
      default: '/var/lib/containerd-stargz-grpc',
    }),
    ...containerdServiceFlags,
    docker: Flags.string({description: "Docker's client, where Docker is used", default: 'docker'}),
  }

  async run(): Promise<readonly Finding[]> {
    const {flags} = await this.parse(NodeCheck)
    const {checkNode} = await import('../../lib/node/check-node.ts')
    const {formatFindings} = await import('../../cli/node-findings.ts')
    await using session = await this.openSession(flags)
    const {findContainerdFiles} = await import('../../lib/node/containerd-service.ts')
    const names = {
      unit: flags['containerd-unit'],
      program: flags.containerd,
      configPath: flags['containerd-config'],
      signal: session.signal,
    }
    const findings = await checkNode({
      ...(await findContainerdFiles(names)),
      docker: flags.docker,
      snapshotter: flags.snapshotter,
      snapshotterAddress: flags['snapshotter-address'],
      snapshotterRoot: flags['snapshotter-root'],
      address: flags.address,
      connectTimeoutMs: flags['connect-timeout'],
      signal: session.signal,
    })
    this.log(formatFindings(findings))
    if (findings.some(({level}) => level === 'problem')) this.exitWithFindings()
    return findings
  }
}
