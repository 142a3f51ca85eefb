// oclif's configuration: as much of it as a command of ours needs, and all of it.

import {Config} from '@oclif/core/config'
import {packageVersion} from './version.ts'

class CommandConfig extends Config {
  /** There are no plugins here to ask. */
  override async runHook(): Promise<{failures: []; successes: []}> {
    return {failures: [], successes: []}
  }
}

/** The configuration for running one command. */
export function commandConfig(root: string): Config {
  const config = new CommandConfig({root})
  config.root = root
  config.name = 'ctr-remote'
  config.bin = 'ctr-remote'
  config.version = packageVersion()
  config.topicSeparator = ' '
  config.userAgent = `ctr-remote/${config.version} ${process.platform}-${process.arch} node-${process.version}`
  return config
}

/** Everything, read from package.json, the manifests and the plugins: for help, and for the commands of plugins. */
export function fullConfig(root: string): Promise<Config> {
  return Config.load({root, devPlugins: false, userPlugins: false})
}
