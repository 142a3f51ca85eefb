import {expect, it} from 'vitest'
import {tidyUsage} from '../../src/cli/help.ts'

it.each([
  ['a [-x <value> |  |  | --y <value>...] [-z]', 'a [-x <value> | --y <value>...] [-z]'],
  ['a [-u <value> | ] [-z]', 'a [-u <value>] [-z]'],
  ['a [--wait <value> ] [-z ]', 'a [--wait <value>] [-z]'],
  [
    'a [--one | --two] [--tlscert <value> --tlskey <value>]',
    'a [--one | --two] [--tlscert <value> --tlskey <value>]',
  ],
  ['a [--store auto|local]', 'a [--store auto|local]'],
])('shows %s without gaps', (usage, tidy) => {
  expect(tidyUsage(usage)).toBe(tidy)
})
