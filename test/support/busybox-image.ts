// Images that can run: a static busybox, or a small program that opens what it is told to.

import {execFileSync} from 'node:child_process'
import {mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {gzipSync} from 'node:zlib'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson, type ImageConfig, type ImageManifest, type RunConfig} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import type {ProfiledImage} from '../../src/lib/profile/profile-image.ts'
import {type MemoryContent, memoryContent} from './memory-content.ts'
import {writeBlob} from './sample-image.ts'
import {archive, member} from './tar.ts'

export interface RunnableImage extends ProfiledImage {
  readonly content: MemoryContent
}

/** An image of these tars, lowest first. */
export async function runnableImage(
  tars: readonly Uint8Array[],
  config: RunConfig = {},
  diffIds = tars.map(tar => digestOf(tar)),
): Promise<RunnableImage> {
  const content = memoryContent()
  const layers: Descriptor[] = []
  for (const tar of tars) layers.push(await writeBlob(content, gzipSync(tar, {level: 1}), OCI_LAYER_GZIP))
  const imageConfig: ImageConfig = {
    architecture: 'amd64',
    os: 'linux',
    config,
    rootfs: {type: 'layers', diff_ids: diffIds},
  }
  const manifest: ImageManifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: await writeBlob(content, encodeJson(imageConfig), OCI_CONFIG),
    layers,
  }
  const {digest} = await writeBlob(content, encodeJson(manifest), OCI_MANIFEST)
  return {content, manifestDigest: digest, manifest, config: imageConfig}
}

/** A tar member for an executable file. */
export function executable(name: string, body: string | Uint8Array): Buffer {
  return member({name, mode: 0o755}, body)
}

/** `bin/busybox`, and `bin/sh` and others as links to it; then `members`. */
export function busyboxLayer(...members: readonly Uint8Array[]): Buffer {
  const applets = ['sh', 'cat', 'sleep', 'id', 'rm', 'stat', 'stty', 'ip', 'true', 'ls']
  return archive(
    executable('bin/busybox', readFileSync('/usr/bin/busybox')),
    ...applets.map(name => member({name: `bin/${name}`, typeflag: '2', linkName: 'busybox'})),
    ...members,
  )
}

/** A static program that opens and reads each of its arguments. */
export function accessorProgram(): Buffer {
  const directory = mkdtempSync(join(tmpdir(), 'ctr-remote-test-'))
  try {
    const source = join(directory, 'accessor.c')
    const program = join(directory, 'accessor')
    writeFileSync(
      source,
      `#include <fcntl.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	char byte;
	for (int i = 1; i < argc; i++)
		if (read(open(argv[i], O_RDONLY), &byte, 1) != 1)
			return 1;
	return 0;
}
`,
    )
    execFileSync('cc', ['-static', '-Os', '-s', '-o', program, source])
    return readFileSync(program)
  } finally {
    rmSync(directory, {recursive: true})
  }
}
