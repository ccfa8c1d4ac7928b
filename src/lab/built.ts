import type { Apt, FetchedPackage } from './apt.ts';
import { LabError } from './errors.ts';
import type { Manifest } from './manifest.ts';

/** A manifest without the date and what follows from the recipe alone. */
export type Built = Pick<Manifest, 'description' | 'files'> & { packages: FetchedPackage[] };

/** Fills an empty folder with a component. */
export type Builder = (apt: Apt, folder: string, progress: (line: string) => void) => Promise<Built>;

/** A package does not hold what it used to hold. */
export const broken = (what: string): LabError =>
  new LabError(
    'LAB_FETCH_FAILED',
    `The packages are not as expected: ${what}.`,
    'Please report this as a bug.',
  );
