// The first file of the layer store that runs.

import {runDaemon} from '../process/run-daemon.ts'
import {DEFAULT_CONFIG, parseFlags, USAGE} from './flags.ts'
import {runLayerStore} from './main.ts'
import {refuseUnverified} from './refuse-unverified.ts'

await runDaemon({
  program: 'stargz-store',
  usage: USAGE,
  parseFlags,
  runConfig: async (argv, print) =>
    (await import('../lazy-layers/config-command.ts')).runConfigCommand({
      argv,
      defaultPath: DEFAULT_CONFIG,
      refuse: ({config}, path) => refuseUnverified(config, path),
      print,
    }),
  failure: 'failed to run the layer store',
  run: runLayerStore,
})
