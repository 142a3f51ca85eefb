// The snapshotter's unit of systemd; examples/snapshotter has the same.

export interface UnitOptions {
  /** The path of containerd-stargz-grpc. */
  readonly program: string
  /** Where it does not listen or keep things as usual. */
  readonly flags: readonly string[]
}

export const UNIT_NAME = 'containerd-stargz-grpc.service'

export function unitFile({program, flags}: UnitOptions): string {
  return `[Unit]
Description=Lazy snapshotter for containerd
After=network.target local-fs.target
Before=containerd.service

[Service]
Type=notify
Environment=HOME=/root
ExecStartPre=-/sbin/modprobe -a overlay fuse erofs
ExecStart=${[program, ...flags].map(quote).join(' ')}
# The process that holds the mounts outlives the daemon: a restart or an upgrade must not take files from containers.
KillMode=process
Restart=always
RestartSec=1
# Restoring hundreds of layers takes its time.
TimeoutStartSec=infinity
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
`
}

/** As systemd.service(5) reads words: specifiers are doubled, what has spaces is quoted. */
function quote(word: string): string {
  const escaped = word.replaceAll('%', '%%').replaceAll('$', '$$$$')
  return /[\s"'\\;]/.test(escaped) ? JSON.stringify(escaped) : escaped
}
