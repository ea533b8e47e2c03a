/** What each word looked at, as attngan_deploy/media/attention.py shows it. */

const HEAT = [255, 64, 0]; // what a fully attended place is tinted with
const STRENGTH = 0.7;

/**
 * For each of `to` places, the source places it is mixed from and their weights: Pillow's bilinear filter.
 * Where pictures shrink, the filter grows with the step, as Pillow's does.
 */
function taps(from, to) {
  const step = from / to;
  const reach = Math.max(step, 1);
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * step;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(from, Math.trunc(centre + reach + 0.5));
    const weights = [];
    for (let source = first; source < last; source++) {
      weights.push(Math.max(0, 1 - Math.abs((source - centre + 0.5) / reach)));
    }
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** Resize a square map of `from` x `from` numbers to `to` x `to`. */
function resize(map, from, to) {
  const filter = taps(from, to);
  const wide = new Float32Array(from * to);
  for (let y = 0; y < from; y++) {
    filter.forEach(({ first, weights }, x) => {
      wide[y * to + x] = weights.reduce((sum, weight, tap) => sum + weight * map[y * from + first + tap], 0);
    });
  }
  const resized = new Float32Array(to * to);
  filter.forEach(({ first, weights }, y) => {
    for (let x = 0; x < to; x++) {
      resized[y * to + x] = weights.reduce((sum, weight, tap) => sum + weight * wide[(first + tap) * to + x], 0);
    }
  });
  return resized;
}

/**
 * Tint a picture where a word's attention is high; the word's maximum counts as 1.
 *
 * @param {Uint8ClampedArray} pixels RGBA, size x size.
 * @param {number} size pixels along a side.
 * @param {Float32Array} attention the word's map, attentionSize x attentionSize.
 * @param {number} attentionSize places along a side of the map.
 * @returns {Uint8ClampedArray} RGBA, size x size.
 */
export function heatOverlay(pixels, size, attention, attentionSize) {
  const peak = attention.reduce((highest, value) => Math.max(highest, value), 0);
  const heat = resize(peak > 0 ? attention.map((value) => value / peak) : attention, attentionSize, size);
  const tinted = new Uint8ClampedArray(pixels.length);
  for (let place = 0; place < size * size; place++) {
    const weight = STRENGTH * Math.min(1, Math.max(0, heat[place]));
    const grey = (pixels[4 * place] + pixels[4 * place + 1] + pixels[4 * place + 2]) / 3;
    for (let channel = 0; channel < 3; channel++) {
      tinted[4 * place + channel] = grey * (1 - weight) + HEAT[channel] * weight; // a clamped array rounds
    }
    tinted[4 * place + 3] = 255;
  }
  return tinted;
}

/** The word's share of the picture's attention, 0 to 1. */
export const share = (attention) => attention.reduce((sum, value) => sum + value, 0) / attention.length;
