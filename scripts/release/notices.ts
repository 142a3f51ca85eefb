// The licences of what a release has inside.

import {existsSync, readdirSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import {bundledPackages} from './bundled-packages.ts'
import {LINKED_LIBRARIES} from './linked-libraries.ts'

export function noticesOf(root: string): string {
  const packages = bundledPackages(root).map(({name, version, license, folder}) => {
    const texts = licenceFiles(join(root, folder))
    return [`${name} ${version} (${license})`, ...texts.map(path => readFileSync(path, 'utf8'))].join('\n\n')
  })
  const libraries = LINKED_LIBRARIES.map(({debian}) =>
    [debian, readFileSync(join('/usr/share/doc', debian, 'copyright'), 'utf8')].join('\n\n'),
  )
  return [...packages, ...libraries].join(`\n\n${'-'.repeat(80)}\n\n`)
}

function licenceFiles(folder: string): string[] {
  if (!existsSync(folder)) return []
  const names = readdirSync(folder).filter(name => /^(licen[cs]e|copying|notice)/i.test(name))
  return names.sort().map(name => join(folder, name))
}
