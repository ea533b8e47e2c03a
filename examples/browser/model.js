/** A text-to-image bundle in the browser, as attngan_deploy/generate/pipeline.py runs it in Python. */

import { FILES } from "./files.js";
import { EPS_STREAM, Z_STREAM, noiseFor } from "./noise.js";
import { fetchFile } from "./store.js";
import { Tokenizer } from "./tokenizer.js";

const SCHEMA_VERSION = 2;
const KIND = "text-to-image";
const MAX_WORDS = 1000; // memory grows with the caption
const ENGINES = {
  wasm: { script: "engine/ort.wasm.js", binary: "engine/ort-wasm-simd-threaded.wasm" },
  webgpu: { script: "engine/ort.webgpu.js", binary: "engine/ort-wasm-simd-threaded.asyncify.wasm" },
};

/** Names of the models, and of the engines, that this site was built with. */
export const modelNames = () =>
  Object.keys(FILES).flatMap((path) => /^models\/(.+)\/bundle\.json$/.exec(path)?.[1] ?? []);
export const engineNames = () => Object.keys(ENGINES).filter((name) => ENGINES[name].binary in FILES);

/** How many bytes a model and its engine take. */
export const bytesOf = (name, engine) =>
  Object.entries(FILES)
    .filter(([path]) => path.startsWith(`models/${name}/`) || path === ENGINES[engine].binary)
    .reduce((sum, [, file]) => sum + file.bytes, 0);

/** A model, ready to run; `TextToImage.load` makes one. */
export class TextToImage {
  /**
   * @param {string} name one of modelNames().
   * @param {string} engine one of engineNames().
   * @param {(bytes: number) => void} progress called with the number of bytes that came, again and again.
   * @returns {Promise<TextToImage>}
   */
  static async load(name, engine, progress) {
    const text = (bytes) => new TextDecoder().decode(bytes);
    const manifest = checked(name, text(await fetchFile(`models/${name}/bundle.json`, progress)));
    const file = (path) => fetchFile(`models/${name}/${path}`, progress);
    const [ort, vocabulary, ...graphs] = await Promise.all([
      loadEngine(engine, progress),
      file(manifest.vocabulary),
      file(manifest.graphs.text_encoder.file),
      file(manifest.graphs.generator.file),
    ]);
    const model = new TextToImage();
    Object.assign(model, { ort, engine, manifest, tokenizer: new Tokenizer(text(vocabulary)) });
    try {
      model.textEncoder = await ort.InferenceSession.create(graphs[0]); // tiny: a GPU would only slow it down
      model.generator = await ort.InferenceSession.create(graphs[1], { executionProviders: [engine] });
    } catch (error) {
      throw new Error(`Model ${name} can't be started: ${error?.message ?? error}`);
    }
    return model;
  }

  /** Free the memory of the graphs. */
  async release() {
    await Promise.all([this.textEncoder.release(), this.generator.release()]);
  }

  /** What a person may want to know of the model. */
  async facts() {
    const { name, sizes, licence, truncation } = this.manifest;
    const runner = this.engine === "webgpu" ? "WebGPU" : plural(this.ort.env.wasm.numThreads, "thread");
    const size = sizes.stages.at(-1);
    return { name, size, licence, truncation, runner, hash: await bundleHash(this.manifest) };
  }

  /**
   * One picture: the first sample of the first caption of `TextToImage.generate` in Python.
   *
   * @param {string} caption
   * @param {bigint} seed
   * @returns {Promise<object>} size, pixels (RGBA), words, unknown, attention (one map a word), attentionSize, seconds.
   */
  async generate(caption, seed) {
    const started = performance.now();
    const { ids, unknown } = this.encode(caption);
    const { sizes, truncation, graphs } = this.manifest;
    const { Tensor } = this.ort;
    const text = await this.textEncoder.run({
      captions: new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
      lengths: new Tensor("int64", [BigInt(ids.length)], [1]),
    });
    const noise = (size, ...stream) => new Tensor("float32", noiseFor(seed, 0, 0, size, ...stream), [1, size]);
    const known = { ...text, z: noise(sizes.z, Z_STREAM, truncation) };
    if (sizes.eps) known.eps = noise(sizes.eps, EPS_STREAM);
    const outputs = await this.generator.run(
      Object.fromEntries(Object.keys(graphs.generator.inputs).map((name) => [name, known[name]])),
    );
    const size = sizes.stages.at(-1);
    const places = (sizes.attention ?? 0) ** 2;
    return {
      size,
      pixels: toPixels(outputs[`image_${size}`].data, size),
      words: ids.map((id) => this.tokenizer.words[id]),
      unknown,
      attention: places
        ? ids.map((_, word) => outputs.attention.data.slice(word * places, (word + 1) * places))
        : [], // of a model that looks at the sentence as a whole
      attentionSize: sizes.attention,
      seconds: (performance.now() - started) / 1000,
    };
  }

  /** The known words of a caption as ids; an Error where there is none. */
  encode(caption) {
    const encoded = this.tokenizer.encode(caption);
    const { ids, unknown } = encoded;
    if (!ids.length && !unknown.length) throw new Error("Write a caption first: a few words about a bird.");
    if (!ids.length) throw new Error(`This model knows none of these words: ${unknown.slice(0, 5).join(", ")}.`);
    if (ids.length > MAX_WORDS) throw new Error(`The caption has ${ids.length} words; ${MAX_WORDS} is the most.`);
    return encoded;
  }
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** The parsed bundle.json, or an Error that says why it can't be used. */
function checked(name, text) {
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new Error(`Model ${name} is damaged: its bundle.json is not JSON. Build the site again.`);
  }
  if (manifest.schema > SCHEMA_VERSION) {
    throw new Error(
      `Model ${name} was made for a newer version of this page: it has schema ${manifest.schema}, ` +
        `and this page knows ${SCHEMA_VERSION}. Build the site again with the newer version.`,
    );
  }
  if (manifest.kind !== KIND) throw new Error(`Model ${name} is of kind ${manifest.kind}, not ${KIND}.`);
  return manifest;
}

async function loadEngine(engine, progress) {
  const { script, binary } = ENGINES[engine];
  const wasmBinary = await fetchFile(binary, progress);
  const ort = await import(`./${script}`);
  ort.env.wasm.wasmBinary = wasmBinary;
  ort.env.logLevel = "error";
  return ort;
}

/** An image f32 [3, size, size] in [-1, 1] as RGBA bytes; the clamped array rounds as the Python runtime does. */
function toPixels(image, size) {
  const pixels = new Uint8ClampedArray(4 * size * size).fill(255);
  for (let channel = 0; channel < 3; channel++) {
    for (let place = 0; place < size * size; place++) {
      const value = image[channel * size * size + place];
      if (!Number.isFinite(value)) throw new Error("The model made values that are not numbers; load it again.");
      pixels[4 * place + channel] = (value + 1) * 127.5;
    }
  }
  return pixels;
}

/** SHA-256 of what decides a bundle's pictures, as `Bundle.hash` in attngan_deploy/bundles/bundle.py; "" without https. */
async function bundleHash(manifest) {
  if (!globalThis.crypto?.subtle) return "";
  const decisive = [...Object.values(manifest.graphs).map((graph) => graph.file), manifest.vocabulary, manifest.golden];
  const names = [...new Set(decisive.filter(Boolean))].sort();
  const table = names.map((name) => `["${name}", "${manifest.files[name].sha256}"]`).join(", ");
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`[${table}]`));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
