import type {ProgressSink} from '../lib/io/progress.ts'

/** Something that shows events until it is disposed. */
export interface ProgressView extends AsyncDisposable {
  readonly sink: ProgressSink
}
