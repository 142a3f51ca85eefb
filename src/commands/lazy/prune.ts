import {BaseCommand} from '../../base-command.ts'
import {findLazyDaemon, lazyDaemonFlags} from '../../cli/lazy-daemon.ts'
import type {PrunedLayers} from '../../lib/layer/ports.ts'

export default class LazyPrune extends BaseCommand {
  static override summary = 'Free the disk of layers that no image has any more'
  static override description =
    `Has the daemon of the snapshotter (containerd-stargz-grpc of this package) remove what it has fetched of layers that are
not mounted. By itself it keeps them for the next pull, until the disk is needed. Layers that somebody has just asked for stay.
With --store podman it is stargz-store that does so.`
  static override examples = [
    '<%= config.bin %> lazy prune',
    '<%= config.bin %> lazy prune --store podman --json',
  ]

  static override flags = {
    ...lazyDaemonFlags,
  }

  async run(): Promise<PrunedLayers> {
    const {flags} = await this.parse(LazyPrune)
    const {pruneLayers} = await import('../../lib/snapshotter-client/snapshotter-client.ts')
    const {formatBytes} = await import('../../cli/units.ts')
    await using session = await this.openSession(flags)
    const {signal} = session
    const containerd = {
      address: flags.address,
      namespace: flags.namespace,
      connectTimeoutMs: flags['connect-timeout'],
      signal,
    }
    const pruned = await pruneLayers({address: await findLazyDaemon(flags, containerd), signal})
    this.log(`${pruned.layers} layer${pruned.layers === 1 ? '' : 's'} removed, ${formatBytes(pruned.bytes)}`)
    return pruned
  }
}
