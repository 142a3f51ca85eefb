// The outside world of profiling, put together.

import {unmountBelow} from '../lib/mount/mounts.ts'
import type {ProfilingAdapters} from '../lib/profile/profile-image.ts'
import {mountImageRootfs} from '../lib/rootfs/image-rootfs.ts'
import {readTextInRoot} from '../lib/rootfs/rooted-path.ts'
import {resolveGpus} from '../lib/runc/cdi.ts'
import {removeContainers, startContainer} from '../lib/runc/container.ts'
import {hostsFile, resolvConfFile} from '../lib/runc/etc-files.ts'
import {resolveUser} from '../lib/runc/image-user.ts'
import {addNetwork, removeNetworks} from '../lib/runc/network.ts'
import {buildRuntimeSpec} from '../lib/runc/runtime-spec.ts'
import {startAccessTracer} from '../lib/tracer/access-tracer.ts'

export const profilingAdapters: ProfilingAdapters = {
  mountRootfs: mountImageRootfs,
  unmountBelow,
  readTextInRoot,
  startTracer: startAccessTracer,
  startContainer,
  removeContainers,
  addNetwork,
  removeNetworks,
  resolveGpus: selection => resolveGpus(selection),
  resolveUser,
  buildRuntimeSpec,
  hostsFile,
  resolvConfFile,
}
