// Podman with everything of its own: storage, runtime directory, configuration, no network.

import {execFile} from 'node:child_process'
import {mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {newerPrograms} from './newer-programs.ts'

const run = promisify(execFile)

/** Every Podman that we are tested with: the distribution's, and a newer one. */
export const PODMANS = [
  {release: "the distribution's Podman", needs: ['podman'], programs: undefined},
  {release: 'a newer Podman', needs: ['newer-podman'], programs: newerPrograms('podman')},
] as const

/**
 * Runs a program and reaps whoever it leaves behind, as an init does: Podman waits for conmon to be gone, and where the
 * machine's init is slow at that, for 20 seconds. The numbers are prctl's, and PR_SET_CHILD_SUBREAPER.
 */
const REAPER = `syscall(${process.arch === 'arm64' ? 167 : 157}, 36, 1, 0, 0, 0);
  my $child = fork; if (!$child) { exec @ARGV or exit 127 }
  while ((my $gone = wait) > 0) { exit($? >> 8) if $gone == $child }`

/** What Podman tells itself when it has made its user namespace. */
const ROOTLESS = {_CONTAINERS_USERNS_CONFIGURED: 'done', _CONTAINERS_ROOTLESS_UID: '1000'}

/** Bytes of output. */
const MAX_OUTPUT = 64 << 20

export interface TestPodman extends AsyncDisposable {
  readonly directory: string
  /** Runs `podman` with these arguments; resolves to what it printed, and throws when it fails. */
  podman(...argv: readonly string[]): Promise<string>
  /** The same to its end, whatever it was. */
  attempt(
    ...argv: readonly string[]
  ): Promise<{readonly exitCode: number; readonly stdout: string; readonly stderr: string}>
}

export interface TestPodmanOptions {
  /** Mountpoints of layer stores, and graph roots of image stores. */
  readonly layerStores?: readonly string[]
  readonly imageStores?: readonly string[]
  /** The directory of podman, conmon and netavark: `newerPrograms('podman')`; by default they are those of the PATH. */
  readonly programs?: string | undefined
  /** Registries that speak plain HTTP. */
  readonly insecure?: readonly string[]
  /** More of registries.conf, TOML. */
  readonly registries?: string
  /** A process whose user and mount namespace it shares, as a rootless Podman does with its `podman unshare`. Needs nsenter. */
  readonly rootless?: number
  /** The program that is told the credentials that Podman uses. */
  readonly authHelper?: string
}

export async function startPodman(options: TestPodmanOptions): Promise<TestPodman> {
  const {layerStores = [], imageStores = [], insecure = [], authHelper, rootless, programs} = options
  const {registries = ''} = options
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-podman-'))
  const [root, runRoot] = [join(directory, 'root'), join(directory, 'run')]
  const [storageConf, registriesConf] = [join(directory, 'storage.conf'), join(directory, 'registries.conf')]
  const containersConf = join(directory, 'containers.conf')
  await mkdir(join(directory, 'home'))
  await writeFile(join(directory, 'auth.json'), '{}')
  await writeFile(
    storageConf,
    `[storage]
driver = "overlay"
graphroot = "${root}"
runroot = "${runRoot}"
[storage.options]
additionallayerstores = ${JSON.stringify(layerStores.map(path => `${path}:ref`))}
additionalimagestores = ${JSON.stringify(imageStores)}
${rootless === undefined ? '' : '[storage.options.overlay]\nignore_chown_errors = "true"'}
`,
  )
  await writeFile(
    registriesConf,
    [
      ...(authHelper === undefined ? [] : [`additional-layer-store-auth-helper = "${authHelper}"\n`]),
      ...insecure.map(location => `[[registry]]\nlocation = "${location}"\ninsecure = true\n`),
      registries,
    ].join('\n'),
  )
  await writeFile(
    containersConf,
    `[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "${join(directory, 'libpod')}"
${programs === undefined ? '' : `helper_binaries_dir = ["${programs}"]\nconmon_path = ["${join(programs, 'conmon')}"]`}
`,
  )
  const env = {
    PATH: programs === undefined ? process.env.PATH : `${programs}:${process.env.PATH}`,
    HOME: join(directory, 'home'),
    PODMAN_IGNORE_CGROUPSV1_WARNING: 'yes',
    CONTAINERS_STORAGE_CONF: storageConf,
    CONTAINERS_REGISTRIES_CONF: registriesConf,
    CONTAINERS_CONF: containersConf,
    TMPDIR: directory,
    REGISTRY_AUTH_FILE: join(directory, 'auth.json'),
    ...(rootless === undefined ? {} : ROOTLESS),
  }

  const enter =
    rootless === undefined
      ? []
      : ['nsenter', '--target', `${rootless}`, '--user', '--mount', '--preserve-credentials']
  const start = (argv: readonly string[]) => {
    const [program, ...words] = [...enter, 'perl', '-e', REAPER, 'podman', ...argv]
    return run(program!, words, {env, maxBuffer: MAX_OUTPUT})
  }

  async function podman(...argv: readonly string[]): Promise<string> {
    return (await start(argv)).stdout
  }

  return {
    directory,
    podman,
    attempt: async (...argv) => {
      try {
        return {exitCode: 0, ...(await start(argv))}
      } catch (error) {
        const {code, stdout, stderr} = error as {code: number; stdout: string; stderr: string}
        return {exitCode: code, stdout, stderr}
      }
    },
    async [Symbol.asyncDispose]() {
      await podman('rm', '--all', '--force', '--time', '0').catch(() => '')
      await unmountBelow(directory)
      await rm(directory, {recursive: true, force: true, maxRetries: 5})
    },
  }
}
