import {expect, it} from 'vitest'
import {checkRandomTrees} from './check-random-trees.ts'
import {FORMATS} from './formats.ts'

// In two files, so that two cores share the work.
it.each(FORMATS.filter(({keepsTocOutside}) => !keepsTocOutside))(
  'a thousand random trees survive $name unchanged',
  async format => expect(await checkRandomTrees(format, 1000)).toBeUndefined(),
)
