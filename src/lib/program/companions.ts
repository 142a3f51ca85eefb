// Programs whose file does not name all that they read to start, and always read it.

import {baseOf, directoryOf, type Language} from './launch.ts'

/** What is beside a Java virtual machine's program, in its `lib`. The modules hold all classes. */
const JAVA_FILES = [
  'jvm.cfg',
  'server/libjvm.so',
  'server/classes.jsa',
  'modules',
  ...['java', 'jimage', 'net', 'nio', 'zip', 'verify', 'jli'].map(name => `lib${name}.so`),
  'tzdb.dat',
]

export const isJava = (name: string) => name === 'java'

export const java: Language = async ({program, words, host}) => {
  const home = directoryOf(directoryOf(program.path))
  for (const name of JAVA_FILES) await host.take(`${home}/lib/${name}`)
  await host.take(`${home}/conf/security/java.security`)
  const classPath = words.flatMap((word, index) =>
    ['-jar', '-cp', '-classpath', '--class-path'].includes(words[index - 1] ?? '') ? word.split(':') : [],
  )
  for (const path of [...classPath, ...host.env('CLASSPATH').split(':')]) {
    if (path.endsWith('.jar')) await host.take(path)
  }
}

export const isCompiler = (name: string) => /^(.+-)?(gcc|g\+\+|cc|c\+\+)(-\d+)?$/.test(name)

/** GCC's driver runs the compiler, the assembler and the linker, which read what every program is linked with. */
export const compiler: Language = async ({program, words, host}) => {
  const named = /^(.+)-(?:gcc|g\+\+)-(\d+)$/.exec(baseOf(program.path))
  if (!named) return
  const [, triple, version] = named
  const own = `${directoryOf(directoryOf(program.path))}/lib/gcc/${triple}/${version}`
  const isPlusPlus = words.some(word => /\.(cc|cpp|cxx|C)$/.test(word)) || /\+\+/.test(baseOf(program.path))
  await host.take(`${own}/${isPlusPlus ? 'cc1plus' : 'cc1'}`)
  for (const word of words) if (/\.(c|cc|cpp|cxx|C|s|S|o|a)$/.test(word)) await host.take(word)
  if (words.includes('-E') || words.includes('-S')) return
  await host.run(['as'])
  if (words.includes('-c')) return
  for (const name of [
    'collect2',
    'liblto_plugin.so',
    'crtbeginS.o',
    'crtendS.o',
    'libgcc.a',
    'libgcc_s.so',
  ]) {
    await host.take(`${own}/${name}`)
  }
  await host.run(['ld'])
  for (const name of ['Scrt1.o', 'crti.o', 'crtn.o', 'libc.so', 'libc_nonshared.a', 'libc.so.6']) {
    await host.take(`/usr/lib/${triple}/${name}`)
  }
}
