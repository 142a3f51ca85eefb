// Self-made certificates for TLS tests, by openssl.

import {execFile} from 'node:child_process'
import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'

export interface Certificate {
  /** PEM text, and the files that hold it. */
  readonly cert: string
  readonly key: string
  readonly certFile: string
  readonly keyFile: string
}

/** Makes a self-signed certificate in `directory` for these subject alternative names (`DNS:…`, `IP:…`). */
export async function makeCertificate(
  directory: string,
  names = 'DNS:localhost,IP:127.0.0.1',
): Promise<Certificate> {
  const certFile = join(directory, `${crypto.randomUUID()}.pem`)
  const keyFile = certFile.replace(/\.pem$/, '.key')
  const subject = ['-subj', '/CN=ctr-remote test', '-addext', `subjectAltName=${names}`]
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', keyFile]
  await promisify(execFile)('openssl', ['req', '-x509', ...key, '-days', '2', '-out', certFile, ...subject])
  return {
    cert: await readFile(certFile, 'utf8'),
    key: await readFile(keyFile, 'utf8'),
    certFile,
    keyFile,
  }
}
