import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {CodedError} from '../../lib/errors/coded-error.ts'
import {parseDigest} from '../../lib/oci/digest.ts'
import {OCI_LAYER_GZIP} from '../../lib/oci/media-type.ts'

export default class ImageGetTocDigest extends BaseCommand {
  static override summary = "Print the digest of a layer's TOC"
  static override description =
    'A TOC that is kept outside of its layer is looked for in the images of the store whose names end in "-esgztoc".'
  static override examples = ['<%= config.bin %> image get-toc-digest sha256:9f86d081884c7d65…']

  static override args = {digest: word('digest of a layer in the store')}

  static override flags = {
    'dump-toc': Flags.boolean({description: 'print the TOC itself, as JSON'}),
    zstdchunked: Flags.boolean({description: 'accepted; the layer itself tells its format'}),
  }

  async run(): Promise<{digest: string; tocDigest: string}> {
    const {args, flags} = await this.parse(ImageGetTocDigest)
    const digest = parseDigest(args.digest)
    const {openLayer, readFooter} = await import('../../lib/estargz/open-layer.ts')
    const {encodeToc} = await import('../../lib/estargz/toc.ts')
    await using session = await this.openSession(flags)
    const store = await session.store()
    const {content} = store
    const info = await content.find(digest, session)
    if (!info) throw new CodedError('not-found', `Cannot find the layer ${digest} in ${content.name}`)
    await using blob = await content.open({mediaType: OCI_LAYER_GZIP, digest, size: info.size}, session)
    const opening = {where: digest, signal: session.signal}
    const isOutside = (await readFooter(blob, opening)).tocOffset === undefined
    const {findToc} = await import('../../lib/external-toc/find-toc.ts')
    const externalToc = isOutside ? await findToc(store, digest, session) : undefined
    const {toc, tocDigest} = await openLayer(blob, {...opening, externalToc})
    this.log(flags['dump-toc'] ? new TextDecoder().decode(encodeToc(toc.entries)) : tocDigest)
    return {digest, tocDigest}
  }
}
