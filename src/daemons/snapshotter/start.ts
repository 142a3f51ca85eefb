// The first file of the snapshotter that runs.

import {runDaemon} from '../process/run-daemon.ts'
import {DEFAULT_CONFIG, parseFlags, USAGE} from './flags.ts'
import {runSnapshotter} from './main.ts'

await runDaemon({
  program: 'containerd-stargz-grpc',
  usage: USAGE,
  parseFlags,
  runConfig: async (argv, print) =>
    (await import('../lazy-layers/config-command.ts')).runConfigCommand({
      argv,
      defaultPath: DEFAULT_CONFIG,
      refuse: () => {},
      print,
    }),
  failure: 'failed to run the snapshotter',
  run: runSnapshotter,
})
