// The layer store's examples say the same thing in each place.

import {readFileSync} from 'node:fs'
import {expect, it} from 'vitest'
import {parseAllDocuments} from 'yaml'

const read = (name: string) => readFileSync(new URL(`../../examples/store/${name}`, import.meta.url), 'utf8')

/** The lines of a unit that mean something, without where the program is and what else starts after it. */
const settings = (unit: string) =>
  unit
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#') && !line.startsWith('Before='))
    .map(line => line.replace(/\/usr\/(local\/)?bin\//, ''))

it("OpenShift's MachineConfig has the store's unit", () => {
  const [machine, runtime] = parseAllDocuments(read('openshift.yaml')).map(document => document.toJS())
  const [{contents}] = machine.spec.config.systemd.units
  expect(settings(contents)).toEqual(settings(read('stargz-store.service')))
  const {path} = runtime.spec.containerRuntimeConfig.additionalLayerStores[0]
  expect(contents).toContain(`stargz-store ${path}\n`)
  expect(read('storage.conf')).toContain(`additionallayerstores = ["${path}:ref"]`)
})
