import { defineConfig } from 'vitest/config';

/** CI asks for a report that it can count, beside the one for people. */
const report = process.env['VITEST_JSON'];

/** The model against QEMU's SMMUv3, from `npm run lab:setup`. */
export default defineConfig({
  test: {
    include: ['test/oracle/**/*.oracle.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 600_000,
    hookTimeout: 60_000,
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
  },
});
