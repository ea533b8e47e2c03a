/**
 * Makes the page work offline: keeps the page's own files when it is installed, and answers with whatever is kept.
 * The large files (engine and models) are kept by the page while it loads them, which shows their progress.
 *
 * Every answer carries the two headers that browsers ask for before a page may use threads; a static host need not
 * know them. The first visit, which this worker does not serve, runs on one thread.
 */

import { FILES } from "./files.js";
import { fetchFile, kept, pathOf, tidy } from "./store.js";

const LIST = new URL("./files.js", import.meta.url).href;
const isPage = (path) => !/^(engine|models)\//.test(path);

self.addEventListener("install", (event) => {
  self.skipWaiting(); // so that a reload is always enough to get a new version
  event.waitUntil(Promise.all(Object.keys(FILES).filter(isPage).map((path) => fetchFile(path))));
});

self.addEventListener("activate", (event) => event.waitUntil(tidy()));

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET") return;
  const path = pathOf(event.request.url);
  if (path) event.respondWith(answer(kept(path), event.request));
  else if (event.request.url === LIST) event.respondWith(answer(list(), event.request));
});

/** files.js as this worker knows it: it can't list its own hash, and must not be newer than the files kept here. */
function list() {
  const text = `export const FILES = ${JSON.stringify(FILES)};\n`;
  return new Response(text, { headers: { "Content-Type": "text/javascript" } });
}

async function answer(held, request) {
  const response = (await held) ?? (await fetch(request));
  if (response.type === "opaqueredirect") return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
