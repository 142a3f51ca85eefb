// The layer of the tests of restarts: as every process that serves it, and the test, make it.

import type {FileNode} from '../../src/lib/vfs/file-tree.ts'
import {createLayerBuilder, directory, type SampleLayer} from './sample-layer.ts'

export function servedLayer(): SampleLayer {
  const {file, layer} = createLayerBuilder()
  const children: Record<string, FileNode> = {}
  for (let index = 0; index < 150; index++) {
    children[`f${String(index).padStart(3, '0')}`] = file({size: (index * index * 37) % 200_000})
  }
  return layer(directory({...children, below: directory(children)}))
}
