/** Reproducible pseudo-random 32-bit numbers (xorshift). */
export function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

export function fillRandom(bytes: Uint8Array, seed: number): void {
  const random = randomFrom(seed);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random();
}
