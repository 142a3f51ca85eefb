// The parts of containerd's configuration that a remote snapshotter depends on, as containerd itself has merged them.

import {existsSync} from 'node:fs'
import {parse} from 'smol-toml'
import {CodedError} from '../errors/coded-error.ts'
import {runCommandOrThrow} from '../io/run-command.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {isRecord} from '../oci/descriptor.ts'

export interface ContainerdSettings {
  /** Of the configuration: 2 with containerd 1.x, 3 and more since 2.0. */
  readonly version: number
  /** The proxy plugin of the snapshotter; undefined where there is none. */
  readonly plugin:
    | {readonly address: string; readonly root: string | undefined; readonly announcesImages: boolean}
    | undefined
  /** What serves the kubelet; undefined where it is switched off. */
  readonly cri:
    | {
        readonly snapshotter: string
        /** Runtime classes with a snapshotter of their own, by their names. */
        readonly runtimes: Readonly<Record<string, string>>
        readonly annotations: boolean
        readonly pauseImage: string | undefined
        /** What a runtime class is made of, by its name; and the one of pods that name none. */
        readonly runtimeTables: Readonly<Record<string, unknown>>
        readonly defaultRuntime: string
      }
    | undefined
  /** Into which snapshotters the transfer service unpacks; undefined with containerd 1.x, whose clients unpack. */
  readonly unpacksInto: readonly string[] | undefined
  /** Files that are read besides, as patterns; with containerd 1.x all that were read. */
  readonly imports: readonly string[]
}

export interface ContainerdFiles extends CallOptions {
  /** containerd's program and its configuration file. */
  readonly program: string
  readonly configPath: string
}

/** As `dumpContainerdConfig`, in our words. */
export async function readContainerdSettings(
  snapshotter: string,
  files: ContainerdFiles,
): Promise<ContainerdSettings> {
  return settingsOf(await dumpContainerdConfig(files), snapshotter)
}

/** Asks containerd's program for what it makes of its files. Throws `failed-precondition` where it cannot read them. */
export async function dumpContainerdConfig({program, configPath, signal}: ContainerdFiles): Promise<unknown> {
  // Without its file containerd has its defaults; one that is named must be there.
  const file = existsSync(configPath) ? ['--config', configPath] : []
  const {stdout} = await runCommandOrThrow(program, [...file, 'config', 'dump'], {signal})
  try {
    return parse(stdout)
  } catch (cause) {
    throw new CodedError('failed-precondition', `Cannot read what "${program} config dump" prints`, {cause})
  }
}

/** `config` is what `containerd config dump` prints, parsed. */
export function settingsOf(config: unknown, snapshotter: string): ContainerdSettings {
  const version = Number(at(config, 'version') ?? 1)
  const unpack = at(config, 'plugins', 'io.containerd.transfer.v1.local', 'unpack_config')
  return {
    version,
    plugin: pluginOf(at(config, 'proxy_plugins', snapshotter)),
    cri: criOf(config, version),
    unpacksInto:
      version < 3 ? undefined : listOf(unpack).flatMap(entry => text(at(entry, 'snapshotter')) ?? []),
    imports: listOf(at(config, 'imports')).flatMap(entry => text(entry) ?? []),
  }
}

function pluginOf(plugin: unknown): ContainerdSettings['plugin'] {
  const address = text(at(plugin, 'address'))
  if (address === undefined || at(plugin, 'type') !== 'snapshot') return undefined
  return {
    address: address.replace(/^unix:(\/\/)?/, ''),
    root: text(at(plugin, 'exports', 'root')),
    announcesImages: at(plugin, 'exports', 'enable_remote_snapshot_annotations') === 'true',
  }
}

function criOf(config: unknown, version: number): ContainerdSettings['cri'] {
  const [images, runtime, pauseImage] =
    version < 3
      ? [
          at(config, 'plugins', 'io.containerd.grpc.v1.cri', 'containerd'),
          at(config, 'plugins', 'io.containerd.grpc.v1.cri', 'containerd'),
          at(config, 'plugins', 'io.containerd.grpc.v1.cri', 'sandbox_image'),
        ]
      : [
          at(config, 'plugins', 'io.containerd.cri.v1.images'),
          at(config, 'plugins', 'io.containerd.cri.v1.runtime', 'containerd'),
          at(config, 'plugins', 'io.containerd.cri.v1.images', 'pinned_images', 'sandbox'),
        ]
  const disabled = at(config, 'disabled_plugins')
  const names = ['cri', 'io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images']
  if (!isRecord(images) || listOf(disabled).some(name => names.some(known => known === name)))
    return undefined
  const runtimes = at(runtime, 'runtimes')
  const runtimeTables = isRecord(runtimes) ? runtimes : {}
  const own = Object.entries(runtimeTables).flatMap(([name, settings]) => {
    const snapshotter = text(at(settings, 'snapshotter'))
    return snapshotter === undefined ? [] : [[name, snapshotter] as const]
  })
  return {
    snapshotter: text(images.snapshotter) ?? 'overlayfs',
    runtimes: Object.fromEntries(own),
    // Switched off unless the file says otherwise.
    annotations: images.disable_snapshot_annotations === false,
    pauseImage: text(pauseImage),
    runtimeTables,
    defaultRuntime: text(at(runtime, 'default_runtime_name')) ?? 'runc',
  }
}

/** What a table of tables has under some keys. */
function at(value: unknown, ...keys: readonly string[]): unknown {
  return keys.reduce<unknown>((table, key) => (isRecord(table) ? table[key] : undefined), value)
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}
