import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../base-command.ts'
import {snapshotterFlag} from '../cli/flags.ts'

const list = {multiple: true, multipleNonGreedy: true} as const

export default class Run extends BaseCommand {
  static override summary = 'Run a container of an image in containerd'
  static override description =
    `Flags stand before REF; what follows ID is the command, which replaces the image's entrypoint and command. The exit
code is the container's. Signals go to the container; the fourth Ctrl-C kills it.`
  static override examples = [
    '<%= config.bin %> run --rm docker.io/library/debian:12 test echo hello',
    '<%= config.bin %> run --rm -t --snapshotter stargz --net-host ghcr.io/owner/app:1-esgz app',
  ]

  static override usage = 'run [FLAGS] REF ID [COMMAND] [ARGUMENTS]'

  static override args = {
    ref: word('name of the image'),
    id: word('name of the new container'),
  }

  static override flags = {
    rm: Flags.boolean({description: 'remove the container when it has ended', exclusive: ['detach']}),
    detach: Flags.boolean({char: 'd', description: 'leave it running, and end'}),
    tty: Flags.boolean({char: 't', description: 'give it a terminal', aliases: ['terminal']}),
    'null-io': Flags.boolean({description: 'no input, and no output', exclusive: ['tty']}),
    ...snapshotterFlag,
    platform: Flags.string({description: "os/architecture[/variant] (default: this machine's)"}),
    runtime: Flags.string({description: 'runtime of containerd', default: 'io.containerd.runc.v2'}),
    label: Flags.string({...list, description: 'label for the container, key=value'}),
    env: Flags.string({...list, description: 'NAME=value'}),
    'env-file': Flags.string({...list, description: 'file of NAME=value lines'}),
    mount: Flags.string({...list, description: 'type=bind,src=/a,dst=/b,options=rbind:ro'}),
    cwd: Flags.string({description: 'working directory'}),
    user: Flags.string({char: 'u', description: 'user[:group], names or ids'}),
    'read-only': Flags.boolean({description: 'mount the root file system read-only'}),
    privileged: Flags.boolean({description: 'all capabilities and devices'}),
    'net-host': Flags.boolean({description: "use the host's network", exclusive: ['cni']}),
    cni: Flags.boolean({description: 'network by CNI plugins'}),
    'cni-plugin-conf-dir': Flags.string({
      description: 'directory of CNI configurations; the first one counts',
      default: '/etc/cni/net.d',
    }),
    'cni-plugin-dir': Flags.string({description: 'directory of CNI plugins', default: '/opt/cni/bin'}),
    gpus: Flags.string({description: 'indices separated by commas, or all'}),
    'pid-file': Flags.string({description: "write the process id of the container's first process here"}),
    cidfile: Flags.string({description: "write the container's id to this new file"}),
    'fifo-dir': Flags.string({
      description: 'directory of the pipes of its standard streams',
      default: '/run/containerd/fifo',
    }),
  }

  private command: readonly string[] = []

  override async init(): Promise<void> {
    const {splitCommand} = await import('../cli/run-arguments.ts')
    const {own, command} = splitCommand(this.argv, {...this.ctor.baseFlags, ...this.ctor.flags})
    this.argv = own
    this.command = command
    await super.init()
  }

  async run(): Promise<{id: string; exitCode: number | undefined}> {
    const {args, flags} = await this.parse(Run)
    const {runWorkloadFrom} = await import('../cli/run-arguments.ts')
    const {hostPlatform, parsePlatform} = await import('../lib/oci/platform.ts')
    const {parseLabels} = await import('../cli/label-arguments.ts')
    const {containerdStore} = await import('../cli/containerd.ts')
    const workload = await runWorkloadFrom(flags, this.command)
    const labels = parseLabels(flags.label ?? [])
    await using session = await this.openSession(flags)
    const store = await containerdStore(session, `run "${args.ref}"`)
    // After containerd has been asked whether it is there, which is what may fail.
    const {findImage} = await import('../lib/transport/store-image.ts')
    const {runContainer} = await import('../lib/run/run-container.ts')
    const exitCode = await runContainer(store, {
      id: args.id,
      image: await findImage(store, args.ref, session),
      platform: flags.platform ? parsePlatform(flags.platform) : hostPlatform(),
      workload,
      labels,
      snapshotter: flags.snapshotter,
      runtime: flags.runtime,
      remove: flags.rm,
      detach: flags.detach,
      nullIo: flags['null-io'],
      readOnly: flags['read-only'],
      privileged: flags.privileged,
      fifoDirectory: flags['fifo-dir'],
      pidFile: flags['pid-file'],
      cidFile: flags.cidfile,
      signal: session.signal,
    })
    process.exitCode = exitCode ?? 0
    return {id: args.id, exitCode}
  }
}
