import {tmpdir} from 'node:os'
import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'
import {platformsFrom} from '../../lib/image/platform-selection.ts'

export interface IpfsPushReport {
  /** What `image rpull --ipfs` takes. */
  readonly cid: string
  readonly digest: string
  /** Attestations of the source that the image in IPFS does not have. */
  readonly droppedAttestations: readonly string[]
}

export default class ImageIpfsPush extends BaseCommand {
  static override summary = 'Add an image to IPFS'
  static override description =
    `Adds every blob to the IPFS node of this user, and pins it there; descriptors say in "urls" where they are. The CID of the
image is printed. Layers become eStargz unless they are already; --no-estargz leaves them as they are. The node is found by
$IPFS_PATH/api, else ~/.ipfs/api.`
  static override examples = [
    '<%= config.bin %> image ipfs-push ghcr.io/owner/app:1',
    '<%= config.bin %> image ipfs-push --estargz=false oci:app:1',
  ]

  static override args = {image: word('name or location of an image')}
  static override flags = {
    estargz: Flags.boolean({description: 'convert layers to eStargz', default: true, allowNo: true}),
    ...platformFlags,
    ...progressFlags,
    ...registryFlags,
    ...userFlag,
  }

  async run(): Promise<IpfsPushReport> {
    const {args, flags} = await this.parse(ImageIpfsPush)
    const {makeEstargzCopy} = await import('../../lib/ipfs-push/estargz-copy.ts')
    const {pushToIpfs} = await import('../../lib/ipfs-push/push-to-ipfs.ts')
    const {sayDroppedAttestations} = await import('../../cli/conversion-report.ts')
    const platforms = platformsFrom(flags)
    await using session = await this.openSession({...flags, creds: flags.user})
    const {signal, say} = session
    const node = await session.ipfs()
    // Without a node nothing need be converted.
    await node.locate()
    await using source = await session.source(args.image)
    const {copied, pushed} = await session.watch(async onProgress => {
      const options = {platforms, signal, say, onProgress}
      await using copied = flags.estargz
        ? await makeEstargzCopy(source, session, {...options, temporaryDirectory: tmpdir()})
        : undefined
      return {copied, pushed: await pushToIpfs(copied?.image ?? source, node, options)}
    })
    const dropped = copied?.droppedAttestations ?? pushed.droppedAttestations
    const droppedAttestations = dropped.map(({digest}) => digest)
    sayDroppedAttestations(droppedAttestations, say)
    this.log(pushed.cid)
    return {cid: pushed.cid, digest: pushed.root.digest, droppedAttestations}
  }
}
