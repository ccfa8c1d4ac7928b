import { defineConfig } from 'vitest/config';

/** CI asks for a report that it can count, beside the one for people. */
const report = process.env['VITEST_JSON'];

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/qemu/**', 'test/lab/**'],
    pool: 'threads',
    isolate: false,
    testTimeout: 60_000,
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
  },
});
