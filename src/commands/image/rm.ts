import * as Flags from '@oclif/core/flags'
import {BaseCommand, words} from '../../base-command.ts'
import {layerStoreFlags} from '../../cli/flags.ts'
import type {Session} from '../../cli/session.ts'
import {CodedError, codeOf, messageOf} from '../../lib/errors/coded-error.ts'

/** The first failure, with the messages of the others. */
function joinFailures([first, ...others]: readonly unknown[]): unknown {
  if (others.length === 0) return first
  const message = [first, ...others].map(messageOf).join('; ')
  return new CodedError(codeOf(first), message, {cause: first})
}

export default class ImageRm extends BaseCommand {
  static override summary = 'Remove images from the store'
  static override description =
    `The names go at once, and so does what no other image needs from the local store. containerd collects it when it next
cleans up, or before the command ends with --sync. Names that cannot be removed do not keep the others.`
  static override aliases = ['image:remove', 'image:delete', 'image:del']

  static override args = {ref: words('names of images')}

  static override flags = {
    ...layerStoreFlags,
    sync: Flags.boolean({description: 'collect everything that is no longer needed before the command ends'}),
  }

  async run(): Promise<{removed: readonly string[]}> {
    const {args, flags} = await this.parse(ImageRm)
    const {findImage} = await import('../../lib/transport/store-image.ts')
    await using session = await this.openSession(flags)
    if (flags.store === 'podman')
      return await this.removeFromPodman(session, args.ref, flags['store-address'])
    const store = await session.store()
    const removed: string[] = []
    const failures: unknown[] = []
    for (const ref of args.ref) {
      try {
        const {name} = await findImage(store, ref, session)
        await store.images.remove(name, session)
        removed.push(name)
        this.log(name)
      } catch (error) {
        session.signal.throwIfAborted()
        failures.push(error)
      }
    }
    if (flags.sync) await store.collectGarbage(session)
    // Nobody else would ever collect what is in the local store.
    else if (store.kind === 'local') {
      await store.collectGarbage(session).catch(error => {
        session.signal.throwIfAborted()
        session.say(`warning: nothing was collected: ${messageOf(error)}`)
      })
    }
    if (failures.length > 0) throw joinFailures(failures)
    return {removed}
  }

  private async removeFromPodman(
    session: Session,
    refs: readonly string[],
    address: string,
  ): Promise<{removed: readonly string[]}> {
    const {removeFromPodman} = await import('../../cli/podman-store.ts')
    const removed: string[] = []
    const failures: unknown[] = []
    for (const ref of refs) {
      try {
        const names = await removeFromPodman(session, address, ref)
        removed.push(...names)
        for (const name of names) this.log(name)
      } catch (error) {
        session.signal.throwIfAborted()
        failures.push(error)
      }
    }
    if (failures.length > 0) throw joinFailures(failures)
    return {removed}
  }
}
