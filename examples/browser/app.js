/** The page: what a person types and chooses, and what they see. */

import { heatOverlay, share } from "./attention.js";
import { commandFor, copyTextOf, showCommands } from "./command.js";
import { PastPictures } from "./history.js";
import { engineNames, modelNames } from "./model.js";
import { parseSeed, randomSeed } from "./noise.js";
import { keepForOffline } from "./offline.js";
import { withRecord } from "./png.js";

const EXAMPLES = [
  "this bird is blue with white and has a very short beak.",
  "a small yellow bird with black wings and a short pointed beak.",
  "a black bird with a bright red patch on its wing.",
  "a large white bird with gray wings and a long orange bill.",
];
const ENGINE_LABELS = { wasm: "Processor (WebAssembly)", webgpu: "Graphics chip (WebGPU)" };

const at = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const canvas = at.picture.getContext("2d");

let busy = true; // loading or drawing: one thing at a time
let facts; // of the model that is loaded
let shown; // the picture on the page: what the worker made, with its caption and seed
let chosenWord = -1;

const past = new PastPictures(at.made, showAgain);

// ---- the worker ----

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();

/** Ask the worker for something; rejects with an Error whose message a person can read. */
function ask(action, values = {}) {
  const id = crypto.getRandomValues(new Uint32Array(2)).join();
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, action, ...values });
  });
}

worker.onmessage = ({ data }) => {
  if (data.progress) return showProgress(data.progress);
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  return data.error ? reject(new Error(data.error)) : resolve(data.result);
};

worker.onerror = (event) => {
  event.preventDefault();
  const error = new Error(`The page's worker stopped: ${event.message ?? "a file is missing"}. Reload the page.`);
  waiting.forEach(({ reject }) => reject(error));
  waiting.clear();
};

/** Run one task of the page, showing that it runs and what went wrong. */
async function during(status, task) {
  busy = true;
  at.error.textContent = "";
  at.status.textContent = status;
  at.model.disabled = at.engine.disabled = true;
  at.draw.setAttribute("aria-disabled", "true"); // not disabled: it would lose the keyboard's focus
  at.picture.classList.add("busy");
  try {
    await task();
    at.status.textContent = "";
    return true;
  } catch (error) {
    at.status.textContent = "";
    at.error.textContent = error.message;
    return false;
  } finally {
    busy = false;
    at.loading.hidden = true;
    at.model.disabled = at.engine.disabled = false;
    at.draw.removeAttribute("aria-disabled");
    at.picture.classList.remove("busy");
  }
}

// ---- loading ----

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

function showProgress({ loaded, total }) {
  at.loading.hidden = false;
  at.progress.max = total;
  at.progress.value = loaded;
  at.status.textContent =
    loaded < total ? `Loading ${megabytes(loaded)} of ${megabytes(total)} MB` : "Starting the model";
}

const load = () =>
  during(`Loading model ${at.model.value}`, async () => {
    facts = await ask("load", { name: at.model.value, engine: at.engine.value });
    at.licence.textContent = facts.licence ?? "";
  });

// ---- drawing ----

/** Draw what the form asks for, loading the model first where none is loaded; returns whether that worked. */
async function draw() {
  if (!facts && !(await load())) return false;
  return during("Drawing", async () => {
    const caption = at.caption.value.trim();
    const seed = parseSeed(at.seed.value);
    shown = { ...(await ask("generate", { caption, seed })), caption, seed, model: facts };
    showMade();
    past.add(linkTo(shown), `${caption}, seed ${seed}, by ${facts.name}`, [at.picture], shown);
  });
}

/** Draw what the form asks for with each model in turn, beside each other; at the end the chosen one's is shown. */
async function drawEvery() {
  const chosen = at.model.value;
  const made = new Map();
  at.side.replaceChildren();
  for (const { value } of at.model.options) {
    if (at.model.value !== value) {
      at.model.value = value;
      facts = undefined;
    }
    if (!(await draw())) return;
    made.set(value, shown);
    at.side.append(beside(value));
  }
  showAgain(made.get(chosen));
}

/** The picture that is shown, smaller, above the name of its model. */
function beside(name) {
  const figure = document.createElement("figure");
  const copy = Object.assign(document.createElement("canvas"), { width: shown.size, height: shown.size });
  copy.getContext("2d").drawImage(at.picture, 0, 0);
  figure.append(copy, Object.assign(document.createElement("figcaption"), { textContent: name }));
  return figure;
}

/** Show a picture that was made before; the form says what it was made from. */
function showAgain(made) {
  if (busy) return false;
  shown = made;
  at.caption.value = made.caption;
  at.seed.value = made.seed;
  if (at.model.value !== made.model.name) {
    at.model.value = made.model.name;
    facts = undefined; // loaded when it is to draw
  }
  at.error.textContent = "";
  showMade();
  at.picture.scrollIntoView({ block: "nearest", behavior: "smooth" });
  return true;
}

function showMade() {
  chosenWord = -1;
  showPicture();
  showWords();
  showFacts();
  at.save.disabled = at.link.disabled = false;
  showCommands(at.command, [commandFor({ ...shown, model: shown.model.name })]);
  at.copied.textContent = "";
  at.again.hidden = false;
  history.replaceState(null, "", linkTo(shown));
}

function showPicture() {
  const { pixels, size, attention, attentionSize, caption, words } = shown;
  const word = words[chosenWord];
  const visible = word === undefined ? pixels : heatOverlay(pixels, size, attention[chosenWord], attentionSize);
  at.picture.width = at.picture.height = size;
  canvas.putImageData(new ImageData(visible, size), 0, 0);
  const label = `Picture of: ${caption}`;
  const tint = word === undefined ? "" : `, tinted where it looked at “${word}”`;
  at.picture.setAttribute("aria-label", label + tint);
}

function showWords() {
  at.attention.hidden = !shown.attention.length;
  if (at.attention.hidden) return;
  const shares = shown.attention.map(share);
  const highest = Math.max(...shares);
  const buttons = shown.words.map((word, place) => {
    const percent = document.createElement("span");
    percent.textContent = `${Math.round(100 * shares[place])}%`;
    const button = document.createElement("button");
    button.type = "button";
    button.append(`${word} `, percent);
    button.style.setProperty("--strength", `${Math.round((45 * shares[place]) / highest)}%`);
    button.setAttribute("aria-pressed", "false");
    button.onclick = () => chooseWord(place === chosenWord ? -1 : place);
    return button;
  });
  at.words.replaceChildren(...buttons);
}

function chooseWord(place) {
  chosenWord = place;
  [...at.words.children].forEach((button, index) => button.setAttribute("aria-pressed", String(index === place)));
  showPicture();
}

function showFacts() {
  const { seed, model, size, seconds, unknown } = shown;
  const made = `${Math.round(1000 * seconds)} ms with ${model.runner}`;
  at.facts.textContent = `Seed ${seed} · ${model.name} · ${size} × ${size} pixels · ${made}`;
  const words = unknown.map((word) => `“${word}”`).join(", ");
  at.unknown.textContent = unknown.length ? `Left out, as the model does not know: ${words}` : "";
}

// ---- saving and sharing ----

const linkTo = ({ caption, seed, model }) => `#${new URLSearchParams({ caption, seed, model: model.name })}`;

async function save() {
  const { pixels, size, caption, seed, model } = shown;
  const plain = new OffscreenCanvas(size, size);
  plain.getContext("2d").putImageData(new ImageData(pixels, size), 0, 0);
  const png = new Uint8Array(await (await plain.convertToBlob({ type: "image/png" })).arrayBuffer());
  const file = `bird-${seed}.png`;
  const record = { caption, line: 1, index: 0, sample: 0, file, model: model.name, model_hash: model.hash };
  const noise = model.truncation ? { truncation: model.truncation.scale } : {};
  const blob = new Blob([withRecord(png, seed, { ...record, shared_noise: false, ...noise })], { type: "image/png" });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    at.status.textContent = "Link copied";
  } catch {
    at.status.textContent = "The browser does not let this page copy: take the link from the address bar";
  }
}

// ---- starting ----

function fill(select, names, label = (name) => name) {
  select.replaceChildren(...names.map((name) => new Option(label(name), name)));
}

function listen() {
  at.form.onsubmit = async (event) => {
    event.preventDefault();
    if (busy) return;
    at.side.replaceChildren();
    if (await draw()) at.picture.scrollIntoView({ block: "nearest", behavior: "smooth" }); // on a phone it is far below
  };
  at.caption.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      at.form.requestSubmit();
    }
  };
  at.every.hidden = at.model.options.length < 2;
  at.every.onclick = () => {
    if (!busy) drawEvery();
  };
  at.random.onclick = () => {
    at.seed.value = randomSeed();
    at.form.requestSubmit();
  };
  at.model.onchange = at.engine.onchange = () => {
    at.side.replaceChildren();
    facts = undefined;
    draw();
  };
  window.onhashchange = () => {
    readLink();
    at.form.requestSubmit();
  };
  at.save.onclick = save;
  at.link.onclick = copyLink;
  at.copy.onclick = async () => {
    at.copied.textContent = await copyTextOf(at.command);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && shown && chosenWord >= 0) chooseWord(-1);
  });
  at.examples.replaceChildren(
    ...EXAMPLES.map((caption) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: caption });
      button.onclick = () => {
        at.caption.value = caption;
        at.form.requestSubmit();
      };
      return button;
    }),
  );
}

/** Fill the form from the page's link, as `linkTo` writes it. */
function readLink() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  at.caption.value = wanted.get("caption") ?? EXAMPLES[0];
  at.seed.value = wanted.get("seed") ?? "0";
  const model = wanted.get("model");
  if (![...at.model.options].some((option) => option.value === model) || model === at.model.value) return;
  at.model.value = model;
  facts = undefined;
}

async function start() {
  const hasGraphics = Boolean(await navigator.gpu?.requestAdapter());
  const engines = engineNames().filter((name) => name !== "webgpu" || hasGraphics);
  fill(at.model, modelNames());
  fill(at.engine, engines, (name) => ENGINE_LABELS[name]);
  at.engine.closest(".field").hidden = engines.length < 2;
  readLink();
  listen();
  await draw();
  await keepForOffline(
    () => ask("keepAll"),
    (text) => {
      at.offline.textContent = text;
    },
  );
}

start();
