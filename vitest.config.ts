import { defineConfig } from 'vitest/config';

/** CI asks for a report that it can count, beside the one for people. */
const report = process.env['VITEST_JSON'];

/**
 * What may not share a worker with others: what replaces modules, and what measures a heap, which takes long and is not
 * exact where others have left much on it.
 */
const ALONE = ['test/explore/mutants.test.ts', 'test/smmu/footprint.test.ts'];

export default defineConfig({
  test: {
    pool: 'threads',
    testTimeout: 60_000,
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
    projects: [
      {
        extends: true,
        test: {
          name: 'shared',
          isolate: false,
          include: ['test/**/*.test.ts'],
          exclude: ['test/qemu/**', 'test/lab/**', ...ALONE],
        },
      },
      { extends: true, test: { name: 'alone', isolate: true, include: ALONE } },
    ],
  },
});
