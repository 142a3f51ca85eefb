// Profiles a workload without end, in the sandbox root that it is given; a test kills it.

import {profileImage} from '../../src/lib/profile/profile-image.ts'
import {busyboxLayer, runnableImage} from '../support/busybox-image.ts'

await profileImage(await runnableImage([busyboxLayer()]), {
  workload: {entrypoint: ['sh', '-c', 'echo started; exec sleep 1000'], stdout: process.stdout},
  periodSeconds: 1000,
  sandboxRoot: process.argv[2]!,
})
