import { defineConfig } from 'vitest/config';

/** CI asks for a report that it can count, beside the one for people. */
const report = process.env['VITEST_JSON'];

/**
 * The real guest: QEMU and an unmodified Linux, from `npm run lab:setup`. One at a time; each needs a CPU or two. They
 * run dist/, because worker threads take only JavaScript: `npm run test:qemu` builds it first.
 */
export default defineConfig({
  test: {
    include: ['test/qemu/**/*.test.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
  },
});
