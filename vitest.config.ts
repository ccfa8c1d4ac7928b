import { defineConfig } from 'vitest/config';

/** CI asks for a report that it can count, beside the one for people. */
const report = process.env['VITEST_JSON'];

/** These replace modules, so they must not share theirs with others. */
const REPLACING_MODULES = ['test/explore/mutants.test.ts'];

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
          exclude: ['test/qemu/**', 'test/lab/**', ...REPLACING_MODULES],
        },
      },
      { extends: true, test: { name: 'alone', isolate: true, include: REPLACING_MODULES } },
    ],
  },
});
