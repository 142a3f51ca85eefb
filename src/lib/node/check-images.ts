// Which images the kubelet takes for present, though their layers are in another snapshotter only: it does not pull them,
// and no pod of them starts.

import type {ConnectOptions} from '../containerd/client.ts'
import {openContainerdStore} from '../containerd/store.ts'
import type {Finding} from './finding.ts'
import {findMissingImages, KUBERNETES} from './missing-images.ts'

export interface ImagesOptions extends ConnectOptions {
  readonly snapshotter: string
  /** What every pod needs first. */
  readonly pauseImage: string | undefined
  /** Whether pods use the snapshotter already. */
  readonly inUse: boolean
}

export async function checkImages(options: ImagesOptions): Promise<Finding[]> {
  const {snapshotter, pauseImage, inUse} = options
  await using store = await openContainerdStore({...options, namespace: KUBERNETES})
  const {looked, missing} = await findMissingImages(store, options)
  if (missing.length === 0) {
    return [
      {
        about: 'image',
        level: 'ok',
        message: `All ${looked} images of "${KUBERNETES}" are in "${snapshotter}"`,
      },
    ]
  }
  return missing.map(({record: {name}}) => ({
    about: 'image',
    level: inUse ? 'problem' : 'warning',
    message: `${name === pauseImage ? 'The pause image' : 'Image'} "${name}" is not in "${snapshotter}"`,
    breaks:
      name === pauseImage
        ? `no pod starts${inUse ? '' : ' after the switch'}`
        : `its pods do not start${inUse ? '' : ' after the switch'}: the kubelet takes it for present`,
    remedy: `ctr-remote -n ${KUBERNETES} image rpull --snapshotter ${snapshotter} ${name}`,
  }))
}
