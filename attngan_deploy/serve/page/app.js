/** The page: what a person types and chooses, and what they see. */

import { commandFor, copyTextOf, showCommands } from "./command.js";
import { PastPictures } from "./history.js";
import { Picture } from "./picture.js";
import { KeyWanted, askModels, askPictures, askWords, useKey } from "./server.js";
import { replaceWord, showMarks } from "./words.js";

const EXAMPLES = [
  "a small red bird with black wings and a short beak",
  "this bird is blue with a white belly and a small bill",
  "a small yellow bird with black wings and a short pointed beak",
];
const COUNTS = [1, 2, 4];
const LARGEST_SEED = 2n ** 64n - 1n;
const TYPING_MS = 250; // after the last letter, until the server is asked for unknown words

const at = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));

let served; // what GET /models said
let pictures = []; // on the page
let made; // what the page shows, once it is whole
let drawing = new AbortController();
let pinned, pointed, focused; // words: chosen by a click, under the pointer, with the keyboard's focus

// ---- the caption, and the words that no model knows ----

let typing = 0;
let looking = new AbortController();
let unknown = []; // of the caption as it was when the server was asked last

const past = new PastPictures(at.made, showAgain, (gone) => gone.pictures.forEach((picture) => picture.forget()));

const chosenModels = () => [...at.models.querySelectorAll("input:checked")].map((input) => input.value);

function captionChanged() {
  at.caption.style.height = "auto";
  at.caption.style.height = `${at.caption.scrollHeight + 2}px`; // with its border: a scroll bar would move the words off their marks
  showMarks(at.marks, at.caption.value, new Set(unknown.map(({ word }) => word)));
  clearTimeout(typing);
  typing = setTimeout(lookUp, TYPING_MS);
}

/** Ask which words the first of the chosen models does not know, and mark them. */
async function lookUp() {
  looking.abort();
  looking = new AbortController();
  const caption = at.caption.value;
  const model = chosenModels()[0] ?? served?.models[0].name;
  if (!model) return;
  try {
    unknown = caption.trim() ? await askWords(caption, model, looking.signal) : [];
  } catch {
    return; // aborted, or too much to do: the next letter asks again, and drawing says what is wrong
  }
  showMarks(at.marks, at.caption.value, new Set(unknown.map(({ word }) => word)));
  at.unknown.replaceChildren(...unknownList());
}

function unknownList() {
  if (!unknown.length) return [];
  const label = document.createElement("span");
  label.textContent = unknown.length === 1 ? "Unknown word, left out:" : "Unknown words, left out:";
  const each = unknown.map(({ word, nearest }) => {
    if (!nearest) return Object.assign(document.createElement("span"), { textContent: `“${word}”` });
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.textContent = `${word} → ${nearest}`;
    button.setAttribute("aria-label", `${word} → ${nearest}: replace`);
    button.onclick = () => {
      at.caption.value = replaceWord(at.caption.value, word, nearest);
      at.caption.focus();
      captionChanged();
      lookUp();
    };
    return button;
  });
  return [label, ...each];
}

// ---- drawing ----

/** The seed that a person typed; an Error says what a seed is. */
function readSeed() {
  const digits = at.seed.value.trim();
  if (!/^[0-9]+$/.test(digits) || BigInt(digits) > LARGEST_SEED) {
    throw new Error(`The seed must be a whole number from 0 to ${LARGEST_SEED}.`);
  }
  return BigInt(digits);
}

async function draw() {
  drawing.abort();
  drawing = new AbortController();
  const { signal } = drawing;
  at.error.textContent = "";
  try {
    if (!served) await loadModels();
    const caption = at.caption.value.trim();
    const names = chosenModels();
    const seed = readSeed();
    if (!caption) throw new Error("Write a caption first.");
    if (!names.length) throw new Error("Choose a model first.");
    at.draw.setAttribute("aria-disabled", "true");
    at.status.textContent = "Drawing";
    const link = `#${new URLSearchParams({ caption, seed, models: names.join() })}`;
    history.replaceState(null, "", link);
    const start = performance.now();
    prepare(caption, names, seed);
    at.columns.classList.add("waiting");
    at.empty.hidden = true;
    at.results.scrollIntoView({ block: "nearest", behavior: "smooth" }); // on a phone it is far below
    const ends = await Promise.allSettled(names.map((model) => drawOne(caption, model, seed, signal)));
    if (signal.aborted) return;
    const failed = ends.find(({ status }) => status === "rejected");
    if (failed) throw failed.reason;
    at.status.textContent = `Drawn in ${((performance.now() - start) / 1000).toFixed(1)} s`;
    keep({ caption, names, seed, link, pictures });
  } catch (error) {
    if (signal.aborted) return;
    at.status.textContent = "";
    at.error.textContent = error.message;
    if (error instanceof KeyWanted) askForKey();
  } finally {
    if (!signal.aborted) {
      at.draw.removeAttribute("aria-disabled");
      at.columns.classList.remove("waiting");
    }
  }
}

/** Empty frames for the pictures to come, a column for each model. */
function prepare(caption, names, seed) {
  if (!made) pictures.forEach((picture) => picture.forget());
  made = undefined;
  clearWords();
  at.again.hidden = true;
  const count = Number(at.count.value);
  pictures = [];
  const columns = names.map((name) => {
    const column = document.createElement("div");
    column.className = "column";
    column.append(Object.assign(document.createElement("h3"), { textContent: name }));
    for (let sample = 0; sample < count; sample++) {
      const number = count > 1 ? `, picture ${sample + 1}` : "";
      const picture = new Picture(`${caption}, by ${name}${number}`, `bird-${name}-${seed}-${sample}.png`);
      pictures.push(Object.assign(picture, { model: name, sample }));
      column.append(picture.element);
    }
    return column;
  });
  at.columns.style.setProperty("--models", names.length);
  at.columns.replaceChildren(...columns);
}

// ---- what was made ----

/** Keep pictures for "Made so far", and show their command. */
function keep({ caption, names, seed, link, pictures }) {
  const columns = [...at.columns.children];
  const count = pictures.length / names.length;
  const firsts = pictures.filter(({ sample }) => sample === 0).map(({ canvas }) => canvas);
  made = { caption, names, seed, link, count, pictures, columns };
  past.add(`${link} ${count}`, `${caption}, seed ${seed}, by ${names.join(", ")}`, firsts, made);
  showCommand();
}

/** Show pictures that were made before; the form says what they were made from. */
function showAgain(chosen) {
  drawing.abort();
  at.draw.removeAttribute("aria-disabled");
  at.columns.classList.remove("waiting");
  if (!made) pictures.forEach((picture) => picture.forget());
  made = chosen;
  pictures = chosen.pictures;
  at.caption.value = chosen.caption;
  at.seed.value = chosen.seed;
  at.count.value = chosen.count;
  for (const input of at.models.querySelectorAll("input")) input.checked = chosen.names.includes(input.value);
  history.replaceState(null, "", chosen.link);
  at.error.textContent = at.status.textContent = "";
  at.columns.style.setProperty("--models", chosen.names.length);
  at.columns.replaceChildren(...chosen.columns);
  clearWords();
  chosen.pictures.forEach(({ words }) => showWords(words));
  showAttention();
  showCommand();
  captionChanged();
  at.results.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

function showCommand() {
  const { caption, seed, names, count } = made;
  showCommands(at.command, names.map((model) => commandFor({ caption, seed, model, count })));
  at.copied.textContent = "";
  at.again.hidden = false;
}

async function drawOne(caption, model, seed, signal) {
  const mine = pictures.filter((picture) => picture.model === model);
  const { attention: able } = served.models.find(({ name }) => name === model);
  const attention = able && mine.length <= served.limits.attended;
  const work = [];
  for await (const event of askPictures({ caption, model, n: mine.length, attention }, seed, signal)) {
    if (event.event === "preview") work.push(mine[event.sample].showPreview(event));
    if (event.event === "picture") work.push(mine[event.sample].show(event));
  }
  await Promise.all(work);
  if (!signal.aborted) showWords(mine[0].words);
}

// ---- what each word looked at ----

function clearWords() {
  pinned = pointed = focused = undefined;
  at.attention.hidden = true;
  at.words.replaceChildren();
}

/** A button for each word; models that know other words than the first may add some. */
function showWords(words) {
  const there = new Set([...at.words.children].map((button) => button.dataset.word));
  for (const word of words.filter((each) => !there.has(each))) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: word.split(" ")[0] });
    button.dataset.word = word;
    button.setAttribute("aria-pressed", "false");
    button.onpointerenter = (event) => point(event.pointerType === "mouse" ? word : pointed, focused);
    button.onpointerleave = () => point(undefined, focused);
    button.onfocus = () => point(pointed, word);
    button.onblur = () => point(pointed, undefined);
    button.onclick = () => pin(pinned === word ? undefined : word);
    at.words.append(button);
  }
  at.attention.hidden = !at.words.childElementCount;
}

function point(underPointer, withFocus) {
  [pointed, focused] = [underPointer, withFocus];
  showAttention();
}

function pin(word) {
  pinned = word;
  if (word === undefined) focused = undefined; // clicked again: the plain picture, although the focus is still there
  showAttention();
}

function showAttention() {
  const word = pointed ?? focused ?? pinned;
  for (const button of at.words.children) {
    button.classList.toggle("active", button.dataset.word === word);
    button.setAttribute("aria-pressed", String(button.dataset.word === pinned));
  }
  pictures.forEach((picture) => picture.tint(word));
}

// ---- starting ----

async function loadModels() {
  served = await askModels();
  const { models, limits } = served;
  const wanted = new URLSearchParams(location.hash.slice(1)).get("models")?.split(",");
  at.caption.maxLength = limits.caption_letters;
  at.models.replaceChildren(
    ...models.map(({ name }) => {
      const input = Object.assign(document.createElement("input"), { type: "checkbox", value: name });
      input.checked = wanted ? wanted.includes(name) : true;
      const label = document.createElement("label");
      label.append(input, name);
      return label;
    }),
  );
  if (!chosenModels().length) at.models.querySelector("input").checked = true;
  at.count.replaceChildren(...COUNTS.filter((count) => count <= limits.pictures).map((count) => new Option(count)));
  at.columns.style.setProperty("--models", models.length);
  at.engines.textContent = enginesOf(models);
  at.licence.textContent = [...new Set(models.map(({ licence }) => licence ?? ""))].join(" ");
}

/** What runs which models, e.g. "base, att1: openvino on cpu, bf16; att2: ..."; no names where all have the same. */
function enginesOf(models) {
  const names = new Map();
  for (const { name, engine } of models) {
    const [what] = engine.split(", fastest");
    names.set(what, [...(names.get(what) ?? []), name]);
  }
  if (names.size === 1) return [...names.keys()][0];
  return [...names].map(([what, those]) => `${those.join(", ")}: ${what}`).join("; ");
}

function askForKey() {
  at["key-field"].hidden = false;
  at.key.focus();
}

function listen() {
  at.form.onsubmit = (event) => {
    event.preventDefault();
    draw();
  };
  at.caption.oninput = captionChanged;
  window.onresize = captionChanged;
  at.caption.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      at.form.requestSubmit();
    }
  };
  at.key.onchange = () => useKey(at.key.value);
  at.key.oninput = at.key.onchange;
  at.random.onclick = () => {
    at.seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
    at.form.requestSubmit();
  };
  at.copy.onclick = async () => {
    at.copied.textContent = await copyTextOf(at.command);
  };
  at.models.onchange = () => {
    lookUp();
    if (!at.empty.hidden) prepare(at.caption.value, chosenModels(), at.seed.value);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    pointed = focused = pinned = undefined;
    showAttention();
  });
  at.examples.replaceChildren(
    ...EXAMPLES.map((caption) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: caption });
      button.onclick = () => {
        at.caption.value = caption;
        captionChanged();
        at.form.requestSubmit();
      };
      return button;
    }),
  );
}

/** Fill the form from the page's link; draw where that has a caption. */
async function start() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  at.caption.value = wanted.get("caption") ?? EXAMPLES[0];
  at.seed.value = wanted.get("seed") ?? "0";
  listen();
  try {
    await loadModels();
  } catch (error) {
    at.error.textContent = error.message;
    if (error instanceof KeyWanted) askForKey();
    return;
  }
  captionChanged();
  prepare(at.caption.value, chosenModels(), at.seed.value);
  if (wanted.has("caption")) await draw();
}

start();
