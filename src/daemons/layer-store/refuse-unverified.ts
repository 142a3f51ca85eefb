// What a layer store does not take of a configuration.

import {CodedError} from '../../lib/errors/coded-error.ts'
import type {SnapshotterConfig} from '../lazy-layers/config.ts'

/** Throws `invalid-argument`. */
export function refuseUnverified(config: SnapshotterConfig, path: string): void {
  if (config.disableVerification || config.allowNoVerification) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use configuration "${path}": a layer store verifies what it serves; remove "disable_verification" and "allow_no_verification"`,
    )
  }
}
