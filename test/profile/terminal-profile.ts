// Profiles a workload that talks to its terminal; run under script(1), which provides one.

import {profileImage} from '../../src/lib/profile/profile-image.ts'
import {busyboxLayer, runnableImage} from '../support/busybox-image.ts'

const {layers} = await profileImage(await runnableImage([busyboxLayer()]), {
  workload: {
    entrypoint: ['sh', '-c', 'stty size; printf "ask>"; read answer; echo "got $answer"'],
    terminal: true,
    terminalSize: process.stdout,
    stdin: 'inherit',
    stdout: process.stdout,
    stderr: process.stderr,
  },
  periodSeconds: 30,
  sandboxRoot: process.argv[2]!,
})
console.log(JSON.stringify(layers[0]))
