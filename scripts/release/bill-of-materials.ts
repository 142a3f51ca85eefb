// The bill of materials of a release, in CycloneDX 1.5.

import {bundledPackages} from './bundled-packages.ts'
import {LINKED_LIBRARIES, versionOf} from './linked-libraries.ts'

export function billOfMaterials(root: string, version: string, time: Date): object {
  const self = `pkg:npm/ctr-remote@${version}`
  const packages = bundledPackages(root).map(({name, version, license, integrity, folder}) => ({
    type: 'library',
    // A package can be there twice, for two that want different versions of it.
    'bom-ref': folder,
    name,
    version,
    purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
    licenses: [{expression: license}],
    ...(integrity?.startsWith('sha512-') ? {hashes: [{alg: 'SHA-512', content: hexOf(integrity)}]} : {}),
  }))
  const libraries = LINKED_LIBRARIES.map(({name, debian, license}) => ({
    type: 'library',
    'bom-ref': debian,
    name,
    version: versionOf(debian),
    purl: `pkg:deb/debian/${debian}@${encodeURIComponent(versionOf(debian))}`,
    licenses: [{expression: license}],
  }))
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: {
      timestamp: time.toISOString().replace('.000Z', 'Z'),
      component: {type: 'application', 'bom-ref': self, name: 'ctr-remote', version, purl: self},
    },
    components: [...packages, ...libraries],
  }
}

function hexOf(integrity: string): string {
  return Buffer.from(integrity.slice('sha512-'.length), 'base64').toString('hex')
}
