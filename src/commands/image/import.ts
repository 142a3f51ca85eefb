import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {platformFlags, progressFlags, snapshotterFlag} from '../../cli/flags.ts'
import type {Session} from '../../cli/session.ts'
import type {ImportOptions} from '../../lib/import/import-images.ts'

export default class ImageImport extends BaseCommand {
  static override summary = 'Read images from an archive into the store'
  static override description =
    `Takes OCI archives and those of docker save, also compressed. The names are printed. Archives that give an image no
name, or only a tag, take it from --base-name, else from "import-" and the date.`
  static override examples = [
    '<%= config.bin %> image import app.tar',
    'docker save app:1 | <%= config.bin %> image import -',
    '<%= config.bin %> image import --base-name example.com/app app.tar',
  ]

  static override args = {in: word('file to read, or - for stdin')}

  static override flags = {
    'base-name': Flags.string({
      description: 'name for images without one; images of other names are left out',
    }),
    digests: Flags.boolean({description: 'also name each image by its digest'}),
    ...snapshotterFlag,
    'no-unpack': Flags.boolean({description: "with containerd, do not unpack this machine's platform"}),
    ...platformFlags,
    ...progressFlags,
  }

  async run(): Promise<{images: readonly {name: string; digest: string}[]}> {
    const {args, flags} = await this.parse(ImageImport)
    const {openInputFile} = await import('../../cli/standard-streams.ts')
    const {importImages} = await import('../../lib/import/import-images.ts')
    const {openArchive} = await import('../../lib/archive/open-archive.ts')
    await using session = await this.openSession(flags)
    await using file = await openInputFile(args.in, session.signal)
    const name = args.in === '-' ? 'the archive on stdin' : `"${args.in}"`
    await using archive = await openArchive(file.path, {signal: session.signal, name})
    const copy = await importCopy(session, flags)
    const images = await session.watch(onProgress =>
      importImages(archive, {
        ...flags,
        baseName: flags['base-name'],
        copy,
        openTarget: name => session.target({transport: 'store', name}),
        onProgress,
        signal: session.signal,
      }),
    )
    for (const image of images) this.log(image.name)
    return {images}
  }
}

/** With containerd, images are ready to run on this machine afterwards. */
async function importCopy(
  session: Session,
  flags: {readonly 'no-unpack': boolean; readonly snapshotter: string},
): Promise<ImportOptions['copy']> {
  const {copyImage} = await import('../../lib/copy/copy-image.ts')
  const store = await session.store()
  if (flags['no-unpack'] || store.kind !== 'containerd') return copyImage
  const {copyAndUnpack} = await import('../../lib/pull/copy-and-unpack.ts')
  const {isContainerdStore} = await import('../../lib/containerd/store.ts')
  const {hostPlatform} = await import('../../lib/oci/platform.ts')
  if (!isContainerdStore(store)) return copyImage
  const {snapshotter} = flags
  return (source, target, options) =>
    copyAndUnpack(source, target, {
      ...options,
      store,
      snapshotter,
      unpackFor: hostPlatform(),
      signal: session.signal,
    })
}
