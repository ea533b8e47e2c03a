/**
 * The noise contract of attngan_deploy/generate/noise.py: the noise of a picture depends on (seed, caption's place, sample
 * number) and on nothing else. Philox4x64-10 (Salmon et al., 2011) with the seed as key, then Box-Muller.
 */

const MASK = (1n << 64n) - 1n;
const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
const ROUNDS = 10;
const WHOLE = { clip: Infinity, scale: 1 };

export const LARGEST_SEED = MASK;
export const Z_STREAM = 0;
export const EPS_STREAM = 1;

/** One block of Philox4x64-10: four 64-bit words from a key of two and a counter of four. */
function philox([key0, key1], [counter0, counter1, counter2, counter3]) {
  for (let round = 0; round < ROUNDS; round++) {
    const product0 = MULTIPLIERS[0] * counter0;
    const product1 = MULTIPLIERS[1] * counter2;
    [counter0, counter1, counter2, counter3] = [
      (product1 >> 64n) ^ counter1 ^ key0,
      product1 & MASK,
      (product0 >> 64n) ^ counter3 ^ key1,
      product0 & MASK,
    ];
    key0 = (key0 + WEYL[0]) & MASK;
    key1 = (key1 + WEYL[1]) & MASK;
  }
  return [counter0, counter1, counter2, counter3];
}

/** 64 random bits as a number inside (0, 1), so that its logarithm is finite. */
const uniform = (bits) => (Number(bits >> 11n) + 0.5) * 2 ** -53;

/**
 * Standard normal noise of one picture.
 *
 * @param {bigint} seed 0 to LARGEST_SEED.
 * @param {number} captionIndex the caption's place in the input, from 0.
 * @param {number} sampleIndex the sample number of that caption, from 0.
 * @param {number} size how many values.
 * @param {number} stream Z_STREAM or EPS_STREAM.
 * @param {{clip: number, scale: number}} truncation numbers beyond clip are left out, and the others taken times scale.
 * @returns {Float32Array} computed in double precision and rounded once.
 */
export function noiseFor(seed, captionIndex, sampleIndex, size, stream = Z_STREAM, truncation = WHOLE) {
  const place = [BigInt(stream), BigInt(captionIndex), BigInt(sampleIndex)];
  const normal = [];
  for (let block = 1n; normal.length < size; block++) { // numpy counts up before it draws
    const words = philox([seed, 0n], [block, ...place]).map(uniform);
    for (const [first, second] of [words.slice(0, 2), words.slice(2)]) {
      const radius = Math.sqrt(-2 * Math.log(first));
      const angle = 2 * Math.PI * second;
      const pair = [radius * Math.cos(angle), radius * Math.sin(angle)];
      normal.push(...pair.filter((value) => Math.abs(value) <= truncation.clip));
    }
  }
  return Float32Array.from(normal.slice(0, size), (value) => value * truncation.scale);
}

/** The seed that a person typed, as a bigint; an Error says what a seed is. */
export function parseSeed(text) {
  const digits = text.trim();
  if (!/^[0-9]+$/.test(digits) || BigInt(digits) > LARGEST_SEED) {
    throw new Error(`The seed must be a whole number from 0 to ${LARGEST_SEED}.`);
  }
  return BigInt(digits);
}

/** A seed short enough to read aloud. */
export const randomSeed = () => BigInt(crypto.getRandomValues(new Uint32Array(1))[0]);
