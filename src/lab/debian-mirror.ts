import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Where this machine gets Debian from, as its own package sources say. */
export interface DebianMirror {
  uri: string;
  /** A keyring that the source names, or undefined for apt's own trust. */
  signedBy: string | undefined;
}

/** One entry of the machine's package sources. */
export interface PackageSource {
  uri: string;
  suites: string[];
  components: string[];
  signedBy: string | undefined;
}

/** Releases of Debian by name; no other distribution uses these. A security archive has other packages and does not count. */
const DEBIAN_SUITE =
  /^(buster|bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)(-updates|-backports)?$/;

/** Entries of the one-line form: `deb [options] uri suite components...`. */
export function parseOneLineSources(text: string): PackageSource[] {
  const sources: PackageSource[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    if (match === null) continue;
    const [, options = '', uri = '', suite = '', components = ''] = match;
    const signedBy = /(?:^|\s)signed-by=(\S+)/i.exec(options)?.[1];
    sources.push({ uri, suites: [suite], components: words(components), signedBy });
  }
  return sources;
}

const byName = (a: string, b: string): number => (a < b ? -1 : 1);

const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== '');

/** Entries of the deb822 form: paragraphs of `Field: value`, continued on indented lines. */
export function parseDeb822Sources(text: string): PackageSource[] {
  const sources: PackageSource[] = [];
  const lines = text.split('\n').filter((line) => !line.startsWith('#'));
  for (const paragraph of lines.join('\n').split(/\n\s*\n/)) {
    const fields = new Map<string, string>();
    let name = '';
    for (const line of paragraph.split('\n')) {
      const match = /^([A-Za-z0-9-]+):\s*(.*)$/.exec(line);
      if (match !== null) {
        name = (match[1] ?? '').toLowerCase();
        fields.set(name, match[2] ?? '');
      } else if (/^\s/.test(line) && name !== '') {
        fields.set(name, `${fields.get(name)}\n${line}`);
      }
    }
    const field = (key: string): string => fields.get(key) ?? '';
    if (
      !words(field('types')).includes('deb') ||
      /^\s*(no|false|without|off|disable)\s*$/i.test(field('enabled'))
    ) {
      continue;
    }
    const signedBy = field('signed-by').trim();
    for (const uri of words(field('uris'))) {
      sources.push({
        uri,
        suites: words(field('suites')),
        components: words(field('components')),
        // It may also hold a whole key, which we have no use for: Debian's keyring is a package.
        signedBy: signedBy.startsWith('/') && !signedBy.includes('\n') ? signedBy : undefined,
      });
    }
  }
  return sources;
}

/** The first source that is Debian's main archive, if any. */
export function chooseMirror(sources: readonly PackageSource[]): DebianMirror | undefined {
  const debian = sources.find(
    ({ suites, components }) =>
      components.includes('main') && suites.some((suite) => DEBIAN_SUITE.test(suite)),
  );
  return debian && { uri: debian.uri, signedBy: debian.signedBy };
}

/**
 * Reads the machine's package sources.
 * @param list its `sources.list`; @param parts its `sources.list.d`. Either may be missing.
 */
export async function readSources(list: string, parts: string): Promise<PackageSource[]> {
  const text = async (file: string): Promise<string> => readFile(file, 'utf8').catch(() => '');
  const sources = parseOneLineSources(await text(list));
  for (const name of (await readdir(parts).catch(() => [])).sort(byName)) {
    if (name.endsWith('.list')) sources.push(...parseOneLineSources(await text(join(parts, name))));
    if (name.endsWith('.sources')) sources.push(...parseDeb822Sources(await text(join(parts, name))));
  }
  return sources;
}
