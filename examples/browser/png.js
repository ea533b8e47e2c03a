/** PNG files with a text chunk, as attngan_deploy/media/images.py writes them, so that `t2i replay` can read them. */

const AFTER_HEADER = 33; // signature 8, header chunk 25

const encoder = new TextEncoder();

function crc32(data) {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** JSON in ASCII, with a seed that may be larger than JavaScript's numbers are exact. */
function toJson(seed, record) {
  const rest = JSON.stringify(record).replace(/[\u007f-\uffff]/g, (letter) => {
    return `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
  return `{"seed": ${seed}, ${rest.slice(1)}`;
}

/**
 * Add what made a picture to its PNG file.
 *
 * @param {Uint8Array} png a PNG file.
 * @param {bigint} seed
 * @param {object} record the other facts, as `Run.record` in attngan_deploy/generate/writer.py names them.
 * @returns {Uint8Array}
 */
export function withRecord(png, seed, record) {
  const body = encoder.encode(`tEXtt2i\0${toJson(seed, record)}`);
  const chunk = new Uint8Array(body.length + 8);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, body.length - 4);
  chunk.set(body, 4);
  view.setUint32(4 + body.length, crc32(body));
  const whole = new Uint8Array(png.length + chunk.length);
  whole.set(png.subarray(0, AFTER_HEADER));
  whole.set(chunk, AFTER_HEADER);
  whole.set(png.subarray(AFTER_HEADER), AFTER_HEADER + chunk.length);
  return whole;
}
