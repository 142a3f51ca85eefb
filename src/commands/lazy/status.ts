import * as Flags from '@oclif/core/flags'
import {BaseCommand, optionalWord} from '../../base-command.ts'
import {findLazyDaemon, lazyDaemonFlags} from '../../cli/lazy-daemon.ts'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {LazyLayerStatus} from '../../lib/layer/lazy-layer-status.ts'
import type {StartTiming} from '../../lib/layer/start-timing.ts'
import type {CallOptions} from '../../lib/oci/content-store.ts'

export default class LazyStatus extends BaseCommand {
  static override summary =
    'Show which layers are mounted lazily, how much of them is here, and what went wrong'
  static override description =
    `Asks the daemon of the snapshotter (containerd-stargz-grpc of this package) about the layers that it was asked to mount.
A layer is lazy, complete (all of it is here, and nothing is fetched any more), or not lazy, with the reason.
With --timing it shows where the time of the image's last start went: since the first request for one of its layers, or for a
container, when each step began and ended, and for how long it went on.
With --store podman it asks stargz-store.`
  static override examples = [
    '<%= config.bin %> lazy status',
    '<%= config.bin %> lazy status --json ghcr.io/owner/app:1-esgz',
    '<%= config.bin %> lazy status --timing ghcr.io/owner/app:1-esgz',
  ]

  static override args = {ref: optionalWord('only the layers of this image')}

  static override flags = {
    timing: Flags.boolean({description: "where the time of the image's last start went"}),
    ...lazyDaemonFlags,
  }

  async run(): Promise<readonly LazyLayerStatus[] | StartTiming> {
    const {args, flags} = await this.parse(LazyStatus)
    if (flags.timing && args.ref === undefined) {
      throw new CodedError('invalid-argument', 'Cannot show the timing of a start: name the image')
    }
    const {listLazyLayers} = await import('../../lib/snapshotter-client/snapshotter-client.ts')
    const {formatLayers} = await import('../../cli/lazy-status.ts')
    const {layersOfImage} = await import('../../lib/lazy-status/layers-of-image.ts')
    await using session = await this.openSession(flags)
    const {signal, say} = session
    const containerd = {
      address: flags.address,
      namespace: flags.namespace,
      connectTimeoutMs: flags['connect-timeout'],
      signal,
    }
    const address = await findLazyDaemon(flags, containerd)
    if (flags.store === 'podman') {
      if (flags.timing) return await this.showTiming(args.ref!, {address, topmost: undefined, signal})
      const layers = await listLazyLayers({address, reference: args.ref, signal})
      if (layers.length > 0) this.log(formatLayers(layers))
      else say(args.ref ? `no layer of ${args.ref} is mounted lazily` : 'no layer is mounted lazily')
      return layers
    }
    const all = await listLazyLayers({address, signal})
    const layers =
      args.ref === undefined
        ? all
        : await layersOfImage(all, args.ref, {...containerd, snapshotter: flags.snapshotter})
    if (flags.timing) {
      return await this.showTiming(args.ref!, {address, topmost: layers.at(-1)?.digest, signal})
    }
    if (layers.length > 0) this.log(formatLayers(layers))
    else say(args.ref ? `no layer of ${args.ref} is mounted lazily` : 'no layer is mounted lazily')
    return layers
  }

  private async showTiming(
    ref: string,
    {topmost, ...query}: {readonly address: string; readonly topmost: string | undefined} & CallOptions,
  ): Promise<StartTiming> {
    const [{listStarts}, {canonicalImageName}, {lastStartOf}, {formatStart}] = await Promise.all([
      import('../../lib/snapshotter-client/snapshotter-client.ts'),
      import('../../lib/transport/store-image.ts'),
      import('../../lib/layer/start-timing.ts'),
      import('../../cli/start-timing.ts'),
    ])
    const start = lastStartOf(await listStarts(query), canonicalImageName(ref), topmost)
    if (!start) {
      const hint = 'its layers were mounted before that, or never'
      throw new CodedError('not-found', `Cannot find a start of ${ref} among the daemon's last ones: ${hint}`)
    }
    this.log(formatStart(start))
    return start
  }
}
