import {BaseCommand, word} from '../../base-command.ts'
import {platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'
import {platformsFrom} from '../../cli/platforms.ts'
import type {VerificationReport} from '../../cli/verification-report.ts'

export default class ImageVerify extends BaseCommand {
  static override summary = 'Check every byte of a lazily pullable image'
  static override description =
    `Checks footers, TOC digests, every chunk and file, landmarks, whiteouts and DiffIDs of all layers, wherever the image
is, and says what is wrong with which layer. The exit code is 1 when something is.`
  static override examples = [
    '<%= config.bin %> image verify app:esgz',
    '<%= config.bin %> image verify docker://registry.example.com/app:esgz',
  ]

  static override args = {image: word('name or location of an image')}
  static override flags = {...platformFlags, ...progressFlags, ...registryFlags, ...userFlag}

  async run(): Promise<VerificationReport> {
    const {args, flags} = await this.parse(ImageVerify)
    const {createBulkCodec} = await import('../../lib/native/bulk-codec.ts')
    const {verifyImage} = await import('../../lib/convert/verify-image.ts')
    const {openTocsBeside} = await import('../../cli/conversion-target.ts')
    const {describeVerification, linesOfVerification} = await import('../../cli/verification-report.ts')
    const platforms = platformsFrom(flags)
    await using session = await this.openSession({...flags, creds: flags.user})
    await using source = await session.source(args.image)
    await using beside = await openTocsBeside(session, args.image)
    const {signal} = session
    const image = await session.watch(onProgress =>
      verifyImage(source, {codec: createBulkCodec(), platforms, tocs: beside.tocs, onProgress, signal}),
    )
    const report = describeVerification(source.name, image)
    for (const line of linesOfVerification(report)) this.log(line)
    if (!report.sound) this.exitWithFindings()
    return report
  }
}
