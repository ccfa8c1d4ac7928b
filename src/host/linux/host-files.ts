/** The files in which Linux describes a machine: sysfs, procfs and device nodes, under a root that tests can choose. */

import { accessSync, constants, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gunzipSync } from 'node:zlib';

/** Whether this process may open a file for reading and writing. */
export type Access = 'absent' | 'refused' | 'granted';

/** Paths are absolute, as on the machine that is described. Nothing throws: what cannot be read is not there. */
export interface HostFiles {
  /** Content without the white space around it; a name that ends in `.gz` is unpacked. */
  text(path: string): string | undefined;
  /** Names in a folder, sorted; none if there is no such folder. */
  names(path: string): readonly string[];
  /** The last part of what a symbolic link points to. */
  target(path: string): string | undefined;
  access(path: string): Access;
}

/** @param root the folder that stands for `/`. */
export function hostFiles(root = '/'): HostFiles {
  return {
    text: (path) =>
      attempt(() => {
        const bytes = readFileSync(join(root, path));
        return (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8').trim();
      }),
    names: (path) => attempt(() => readdirSync(join(root, path)).sort()) ?? [],
    target: (path) => attempt(() => basename(readlinkSync(join(root, path)))),
    access: (path) => {
      try {
        accessSync(join(root, path), constants.R_OK | constants.W_OK);
        return 'granted';
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        return code === 'ENOENT' || code === 'ENOTDIR' ? 'absent' : 'refused';
      }
    },
  };
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
