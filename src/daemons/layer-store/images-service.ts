// The images of the store, for `ctr-remote image rpull`, `ls` and `rm` with `--store podman`.

import type {MessageInitShape} from '@bufbuild/protobuf'
import type {StoredImage} from '../../lib/layer-store/stored-image.ts'
import type {StoredImages} from '../../lib/layer-store/stored-images.ts'
import {Images, type StoredImageSchema} from '../../lib/layer-store-client/proto/images_pb.ts'
import {hostPlatform, parsePlatform} from '../../lib/oci/platform.ts'
import type {GrpcServer} from '../process/grpc-server.ts'

/** Adds `ctr_remote.store.v1.Images` to a server. */
export function serveImages(server: GrpcServer, images: StoredImages): void {
  server.add(Images, {
    add: async ({reference, platform}, {signal}) =>
      imageMessage(
        await images.add(reference, platform === '' ? hostPlatform() : parsePlatform(platform), {signal}),
      ),
    remove: async ({reference}) => ({removed: imageMessage(await images.remove(reference))}),
    list: async () => ({images: images.list().map(imageMessage)}),
  })
}

function imageMessage({names, id, digest, layers}: StoredImage): MessageInitShape<typeof StoredImageSchema> {
  return {
    names: [...names],
    id,
    digest,
    layers: layers.map(({digest: blob, compressedSize, lazy, reason}) => ({
      digest: blob,
      size: BigInt(compressedSize),
      lazy: lazy !== undefined,
      ...(reason === undefined ? {} : {reason}),
    })),
  }
}
