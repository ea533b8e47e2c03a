/**
 * The files of this site, kept in the browser so that the page works offline.
 *
 * build.py lists every file with its size and SHA-256 in files.js. A file is kept under its name and hash, so that a
 * new version of the site fetches only what changed, and nothing is used before it was compared with its hash.
 */

import { FILES } from "./files.js";

const SITE = new URL("./", import.meta.url).href;
const CACHE = `attngan-deploy ${SITE}`; // other pages of the same host have caches too

const keyOf = (path) => `${SITE}${path}?sha256=${FILES[path].sha256}`;

/** Browsers offer caches and hashes only to pages from https or localhost. */
const openCache = async () => ("caches" in globalThis ? caches.open(CACHE) : undefined);

/** The path within this site that a URL means, or undefined where it is not one of our files. */
export function pathOf(url) {
  const plain = url.split(/[?#]/)[0];
  if (!plain.startsWith(SITE)) return undefined;
  const path = plain.slice(SITE.length) || "index.html";
  return Object.hasOwn(FILES, path) ? path : undefined;
}

/** The kept response of a file, or undefined. */
export const kept = async (path) => (await openCache())?.match(keyOf(path));

/** Paths of all files that are not kept yet. */
export async function missing() {
  const answers = await Promise.all(Object.keys(FILES).map(async (path) => [path, await kept(path)]));
  return answers.filter(([, response]) => !response).map(([path]) => path);
}

/** Remove what an older version of the site kept. */
export async function tidy() {
  const cache = await openCache();
  const current = new Set(Object.keys(FILES).map(keyOf));
  const old = (await cache.keys()).filter((request) => !current.has(request.url));
  await Promise.all(old.map((request) => cache.delete(request)));
}

/**
 * The bytes of a file: the kept ones, or from the network, and then kept.
 *
 * @param {string} path one of FILES.
 * @param {(bytes: number) => void} progress called with the number of bytes that came, again and again.
 * @returns {Promise<ArrayBuffer>}
 */
export async function fetchFile(path, progress = () => {}) {
  const held = await kept(path);
  if (held) {
    progress(FILES[path].bytes);
    return held.arrayBuffer();
  }
  const response = await request(path);
  const data = await readAll(response, FILES[path].bytes, path, progress);
  await check(path, data);
  await keep(path, data, response.headers.get("Content-Type"));
  return data.buffer;
}

async function request(path) {
  let response;
  try {
    response = await fetch(SITE + path, { cache: "no-cache" });
  } catch {
    throw new Error(`${path} can't be loaded: there is no connection, and it was not kept. Go online and reload.`);
  }
  if (response.ok) return response;
  throw new Error(`${path} can't be loaded: the server answers ${response.status}. Is the site complete?`);
}

async function readAll(response, size, path, progress) {
  const data = new Uint8Array(size);
  const reader = response.body.getReader();
  let place = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (place + part.value.length > size) throw changed(path);
      data.set(part.value, place);
      place += part.value.length;
      progress(part.value.length);
    }
  } catch (error) {
    if (error instanceof TypeError) throw new Error(`The connection broke while ${path} was loading. Reload the page.`);
    throw error;
  }
  if (place !== size) throw changed(path);
  return data;
}

async function check(path, data) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== FILES[path].sha256) throw changed(path);
}

const changed = (path) =>
  new Error(`${path} is not the file that this site was built with. Reload the page, or build the site again.`);

async function keep(path, data, type) {
  const headers = { "Content-Type": type ?? "application/octet-stream", "Content-Length": String(data.length) };
  try {
    await (await openCache())?.put(keyOf(path), new Response(data, { headers }));
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error; // no room: the page works, but not offline, and says so
  }
}
