import {tmpdir} from 'node:os'
import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import type {ConversionReport} from '../../cli/conversion-report.ts'
import {
  conversionFlags,
  copyCredsFlags,
  platformFlags,
  progressFlags,
  registryFlags,
  userFlag,
} from '../../cli/flags.ts'
import {platformsFrom} from '../../lib/image/platform-selection.ts'

export default class ImageConvert extends BaseCommand {
  static override summary = 'Convert the layers of an image'
  static override description =
    `Writes the image with every layer as eStargz or zstd:chunked, for lazy pulling, or back as plain zstd, gzip or
uncompressed. The digest of the new image is printed. Source and target are names in the store, or places such as
docker://… and oci:….`
  static override examples = [
    '<%= config.bin %> image convert --estargz --oci example.com/foo:orig example.com/foo:esgz',
    '<%= config.bin %> image convert --estargz --oci --estargz-record-in record.json foo:orig foo:esgz',
    '<%= config.bin %> image convert --estargz --oci docker://docker.io/library/debian:12 oci:debian:esgz',
  ]

  static override args = {
    source: word('image to convert'),
    target: word('name or place of the new image'),
  }

  static override flags = {
    estargz: Flags.boolean({description: 'eStargz layers; should be used with --oci'}),
    'estargz-record-in': Flags.string({
      description: 'record file of optimize --record-out: these files come first in every layer',
    }),
    profile: Flags.string({
      multiple: true,
      multipleNonGreedy: true,
      description: 'profile of optimize --profile-out, or several: what they say was read comes first',
      exclusive: ['estargz-record-in', 'zstdchunked-record-in', 'zstd', 'gzip', 'uncompress'],
    }),
    'profile-from-registry': Flags.boolean({
      description: 'prioritize what the profiles of the image in its registry say',
      exclusive: ['profile', 'estargz-record-in', 'zstdchunked-record-in', 'zstd', 'gzip', 'uncompress'],
    }),
    'estargz-keep-diff-id': Flags.boolean({
      description: 'keep the tar of every layer as it is; needs --estargz-external-toc',
    }),
    ...conversionFlags,
    'zstdchunked-record-in': Flags.string({description: 'as --estargz-record-in'}),
    zstd: Flags.boolean({description: 'plain zstd layers, which cannot be read lazily; needs --oci'}),
    'zstd-compression-level': Flags.integer({
      description: 'zstd compression level',
      default: 3,
      min: 1,
      max: 22,
    }),
    gzip: Flags.boolean({description: 'plain gzip layers, which cannot be read lazily'}),
    uncompress: Flags.boolean({description: 'uncompressed layers'}),
    ...platformFlags,
    ...progressFlags,
    ...registryFlags,
    ...userFlag,
    ...copyCredsFlags,
  }

  async run(): Promise<ConversionReport> {
    const {args, flags} = await this.parse(ImageConvert)
    const {convertConversion} = await import('../../cli/conversion.ts')
    const {format, oci, warnings} = convertConversion(flags)
    const platforms = platformsFrom(flags)
    const {createLayerConversion, parallelLayers, readRecordPaths} = await import(
      '../../lib/conversion/layer-conversion.ts'
    )
    const {openConversionTarget} = await import('../../lib/conversion/conversion-target.ts')
    const {describeConversion, reportConversion} = await import('../../cli/conversion-report.ts')
    const {archivePaths} = await import('../../lib/transport/image-location.ts')
    const {convertImage} = await import('../../lib/convert/convert-image.ts')
    const {findInRegistry} = await import('../../cli/profile-repository.ts')
    const {readImage} = await import('../../lib/image/image-tree.ts')
    const {profiledFirst, readProfiles} = await import('../../lib/conversion/profiles.ts')
    const {samePaths} = await import('../../lib/convert/lazy-conversion.ts')
    await this.keepOffStdout(archivePaths(args.target))
    await using session = await this.openSession({...flags, creds: flags.user})
    warnings.forEach(session.say)
    const recordFile =
      format.kind === 'zstdchunked' ? flags['zstdchunked-record-in'] : flags['estargz-record-in']
    const prioritized = samePaths(await readRecordPaths(recordFile))
    await using source = await session.source(args.source)
    const tree = await readImage(source, platforms, session)
    const profiled = flags['profile-from-registry']
      ? profiledFirst(await (await findInRegistry(session, args.source))(tree.manifests))
      : flags.profile && profiledFirst(await readProfiles(flags.profile))
    const layers = createLayerConversion(format, {
      memoryDirectory: session.memoryDirectory,
      temporaryDirectory: tmpdir(),
      maxUncompressedSize: flags['max-layer-size'],
      prioritizedIn: profiled ?? (() => prioritized),
      say: session.say,
    })
    await using target = await openConversionTarget(session, args.target, format)
    const image = await session.watch(onProgress =>
      convertImage(source, target.image, {
        platforms,
        tree,
        oci,
        layers,
        parallelLayers: parallelLayers(),
        beforePublish: target.beforePublish,
        onProgress,
        signal: session.signal,
      }),
    )
    const report = describeConversion(target.image.name, image, target.extraImages)
    reportConversion(report, {
      format: flags.format,
      print: line => this.log(line),
      say: session.say,
      elapsedMs: session.elapsedMs(),
    })
    return report
  }
}
