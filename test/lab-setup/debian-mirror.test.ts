import { describe, expect, it } from 'vitest';

import { versionInSuite } from '../../src/lab/apt.ts';
import { chooseMirror, parseDeb822Sources, parseOneLineSources } from '../../src/lab/debian-mirror.ts';

describe('the one-line form of package sources', () => {
  it('skips comments, source packages and lines that are not whole', () => {
    expect(
      parseOneLineSources(
        '# deb http://a.example x main\ndeb-src http://a.example bookworm main\ndeb http://b.example\n\n',
      ),
    ).toEqual([]);
  });

  it('reads options, suite and components', () => {
    const text =
      'deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm main contrib # mine';
    expect(parseOneLineSources(text)).toEqual([
      {
        uri: 'http://mirror.example/debian',
        suites: ['bookworm'],
        components: ['main', 'contrib'],
        signedBy: '/usr/share/keyrings/k.gpg',
      },
    ]);
  });
});

describe('the deb822 form of package sources', () => {
  it('skips what is disabled and what is not for binaries', () => {
    expect(
      parseDeb822Sources(
        'Types: deb\nURIs: http://a.example\nSuites: trixie\nComponents: main\nEnabled: no\n\n' +
          'Types: deb-src\nURIs: http://b.example\nSuites: trixie\nComponents: main\n',
      ),
    ).toEqual([]);
  });

  it('reads lists, continued lines and comments in between', () => {
    const text = `# written by a person
Types: deb deb-src
URIs: http://a.example/debian
# a comment
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;
    expect(parseDeb822Sources(text)).toEqual([
      {
        uri: 'http://a.example/debian',
        suites: ['bookworm', 'bookworm-updates'],
        components: ['main'],
        signedBy: '/usr/share/keyrings/debian-archive-keyring.gpg',
      },
    ]);
  });

  it('does not take a key that is written out for the name of a file', () => {
    const text =
      'Types: deb\nURIs: http://a.example\nSuites: sid\nComponents: main\nSigned-By:\n -----BEGIN PGP\n .\n x\n';
    expect(parseDeb822Sources(text)[0]?.signedBy).toBeUndefined();
  });
});

describe('the mirror', () => {
  const source = (uri: string, suite: string, component = 'main') => ({
    uri,
    suites: [suite],
    components: [component],
    signedBy: undefined,
  });

  it('is none where there is no Debian', () => {
    expect(chooseMirror([])).toBeUndefined();
    expect(
      chooseMirror([source('http://u.example/ubuntu', 'noble'), source('http://n.example', 'nodistro')]),
    ).toBeUndefined();
  });

  it('is not the archive of security updates, which lacks other releases', () => {
    expect(
      chooseMirror([
        source('http://s.example/debian-security', 'bookworm-security'),
        source('http://d.example', 'bookworm'),
      ]),
    ).toEqual({ uri: 'http://d.example', signedBy: undefined });
  });

  it('is not an archive without main', () => {
    expect(chooseMirror([source('http://d.example', 'bookworm', 'contrib')])).toBeUndefined();
  });
});

describe('the version that a suite has', () => {
  const POLICY = `qemu-system-arm:
  Installed: (none)
  Candidate: 1:10.0.13+ds-0+deb13u1
  Version table:
     1:11.1.3+ds-1~bpo13+1 100
        100 http://mirror.example/debian trixie-backports/main amd64 Packages
     1:10.0.13+ds-0+deb13u1 500
        500 http://mirror.example/debian trixie/main amd64 Packages
`;

  it.each([
    ['trixie', '1:10.0.13+ds-0+deb13u1'],
    ['trixie-backports', '1:11.1.3+ds-1~bpo13+1'],
    ['bookworm', undefined],
  ])('%s', (suite, version) => {
    expect(versionInSuite(POLICY, suite)).toBe(version);
  });

  it('is found although the package is installed', () => {
    const text =
      ' Version table:\n *** 2.1 500\n        500 http://mirror.example/debian trixie/main arm64 Packages\n        100 /var/lib/dpkg/status\n';
    expect(versionInSuite(text, 'trixie')).toBe('2.1');
  });
});
