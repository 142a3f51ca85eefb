// What is right and wrong in containerd's configuration, seen from a remote snapshotter.

import type {ContainerdSettings} from './containerd-settings.ts'
import type {Finding} from './finding.ts'

export interface SettingsContext {
  readonly snapshotter: string
  /** Where the snapshotter listens and keeps things, for what to write where nothing is written. */
  readonly address: string
  readonly root: string
  /** The file that a remedy is to be written into. */
  readonly configPath: string
}

export function checkSettings(settings: ContainerdSettings, context: SettingsContext): Finding[] {
  if (!settings.plugin) return [missingPlugin(settings, context)]
  return [
    ...checkExports(settings, context),
    ...checkCri(settings, context),
    ...checkTransfer(settings, context),
  ]
}

function missingPlugin(
  {version}: ContainerdSettings,
  {snapshotter, address, root, configPath}: SettingsContext,
): Finding {
  const exports = version < 3 ? '' : `\n${exportsTable(snapshotter, root)}`
  return {
    about: 'containerd',
    level: 'problem',
    message: `containerd's configuration has no proxy plugin "${snapshotter}"`,
    breaks: 'nothing can use the snapshotter',
    remedy: add(
      configPath,
      `[proxy_plugins.${snapshotter}]\n  type = "snapshot"\n  address = "${address}"${exports}`,
    ),
  }
}

function checkExports(
  {version, plugin}: ContainerdSettings,
  {snapshotter, root, configPath}: SettingsContext,
): Finding[] {
  if (version < 3 || plugin?.root !== undefined) return []
  return [
    {
      about: 'containerd',
      level: 'warning',
      message: `The plugin "${snapshotter}" has no exports.root`,
      breaks:
        'the kubelet does not see the disk that layers take, and its image garbage collection does not go by it',
      remedy: add(configPath, exportsTable(snapshotter, root)),
    },
  ]
}

function exportsTable(snapshotter: string, root: string): string {
  return `[proxy_plugins.${snapshotter}.exports]\n  root = "${root}"\n  enable_remote_snapshot_annotations = "true"`
}

function checkCri({version, cri}: ContainerdSettings, {snapshotter, configPath}: SettingsContext): Finding[] {
  if (!cri) return []
  const section =
    version < 3
      ? '[plugins."io.containerd.grpc.v1.cri".containerd]'
      : '[plugins."io.containerd.cri.v1.images"]'
  const classes = Object.keys(cri.runtimes).filter(name => cri.runtimes[name] === snapshotter)
  if (cri.snapshotter !== snapshotter && classes.length === 0) {
    return [
      {
        about: 'cri',
        level: 'warning',
        message: `Pods use the snapshotter "${cri.snapshotter}"`,
        breaks: 'the kubelet pulls every image in full',
        remedy: `${add(configPath, `${section}\n  snapshotter = "${snapshotter}"\n  disable_snapshot_annotations = false`)}
once the images below are in "${snapshotter}"`,
      },
    ]
  }
  const who = cri.snapshotter === snapshotter ? 'Pods' : `Pods of the runtime ${classes.join(', ')}`
  const used: Finding = {about: 'cri', level: 'ok', message: `${who} use the snapshotter "${snapshotter}"`}
  if (cri.annotations) return [used]
  return [
    used,
    {
      about: 'cri',
      level: 'problem',
      message: 'disable_snapshot_annotations is not false',
      breaks:
        'the kubelet pulls every image in full, because the snapshotter is not told which image a layer belongs to',
      remedy: add(configPath, `${section}\n  disable_snapshot_annotations = false`),
    },
  ]
}

/** How `ctr image pull` and nerdctl pull since containerd 2.1. */
function checkTransfer(
  {plugin, unpacksInto}: ContainerdSettings,
  {snapshotter, root, configPath}: SettingsContext,
): Finding[] {
  if (!unpacksInto) return []
  if (!unpacksInto.includes(snapshotter)) {
    // Naming one takes the default away.
    const wanted = [...(unpacksInto.length === 0 ? ['overlayfs'] : unpacksInto), snapshotter]
    return [
      {
        about: 'transfer',
        level: 'warning',
        message: `The transfer service does not unpack into "${snapshotter}"`,
        breaks: `"ctr image pull --snapshotter=${snapshotter}" fails; the kubelet and "image rpull" do not need it`,
        remedy: add(
          configPath,
          wanted
            .map(
              name =>
                `[[plugins."io.containerd.transfer.v1.local".unpack_config]]\n  platform = "linux"\n  snapshotter = "${name}"`,
            )
            .join('\n'),
        ),
      },
    ]
  }
  const ok: Finding = {
    about: 'transfer',
    level: 'ok',
    message: `The transfer service unpacks into "${snapshotter}"`,
  }
  if (plugin?.announcesImages) return [ok]
  return [
    ok,
    {
      about: 'transfer',
      level: 'warning',
      message: `The plugin "${snapshotter}" does not ask for remote snapshots' annotations`,
      breaks: `"ctr image pull --snapshotter=${snapshotter}" pulls in full`,
      remedy: add(configPath, exportsTable(snapshotter, root)),
    },
  ]
}

function add(path: string, lines: string): string {
  return `write into ${path}, and "systemctl restart containerd":\n${lines}`
}
