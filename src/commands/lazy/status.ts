import * as Flags from '@oclif/core/flags'
import {BaseCommand, optionalWord} from '../../base-command.ts'
import type {LazyLayerStatus} from '../../lib/snapshot/lazy-layer-status.ts'

export default class LazyStatus extends BaseCommand {
  static override summary =
    'Show which layers are mounted lazily, how much of them is here, and what went wrong'
  static override description =
    `Asks the daemon of the snapshotter (containerd-stargz-grpc of this package) about the layers that it was asked to mount.
A layer is lazy, complete (all of it is here, and nothing is fetched any more), or not lazy, with the reason.`
  static override examples = [
    '<%= config.bin %> lazy status',
    '<%= config.bin %> lazy status --json ghcr.io/owner/app:1-esgz',
  ]

  static override args = {ref: optionalWord('only the layers of this image')}

  static override flags = {
    snapshotter: Flags.string({
      description: "the snapshotter's name in containerd",
      env: 'CONTAINERD_SNAPSHOTTER',
      default: 'stargz',
    }),
    'snapshotter-address': Flags.string({
      description: "the socket of the snapshotter's daemon (default: what containerd is configured with)",
    }),
  }

  async run(): Promise<readonly LazyLayerStatus[]> {
    const {args, flags} = await this.parse(LazyStatus)
    const {listLazyLayers} = await import('../../lib/snapshotter-client/snapshotter-client.ts')
    const {findSnapshotterSocket, formatLayers, layersOfImage} = await import('../../cli/lazy-status.ts')
    await using session = await this.openSession(flags)
    const {signal, say} = session
    const containerd = {
      address: flags.address,
      namespace: flags.namespace,
      connectTimeoutMs: flags['connect-timeout'],
      signal,
    }
    const address =
      flags['snapshotter-address'] ?? (await findSnapshotterSocket(flags.snapshotter, containerd))
    const all = await listLazyLayers({address, signal})
    const layers =
      args.ref === undefined
        ? all
        : await layersOfImage(all, args.ref, {...containerd, snapshotter: flags.snapshotter})
    if (layers.length > 0) this.log(formatLayers(layers))
    else say(args.ref ? `no layer of ${args.ref} is mounted lazily` : 'no layer is mounted lazily')
    return layers
  }
}
