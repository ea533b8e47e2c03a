/** What the server is asked. A problem becomes an Error whose message a person can read. */

export class KeyWanted extends Error {}

let key = "";

/** Use this API key from now on; it is kept as long as the page is open, and nowhere else. */
export function useKey(value) {
  key = value;
}

/** Ask the server, which may lie below a path of another one: `path` is relative to the page. */
async function ask(path, body, signal) {
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(body && { "Content-Type": "application/json" }) };
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({ detail: `the server answers ${response.status}` }));
  const sentence = `${detail[0].toUpperCase()}${detail.slice(1)}.`;
  throw response.status === 401 ? new KeyWanted(sentence) : new Error(sentence);
}

/** What is served, and the limits of a request. */
export const askModels = async () => (await ask("models")).json();

/** The words of a caption that a model lacks, each with its nearest known word. */
export const askWords = async (caption, model, signal) =>
  (await (await ask("words", JSON.stringify({ caption, model }), signal)).json()).unknown;

/**
 * Let a model draw a caption.
 *
 * @param {{caption: string, model: string, n: number, attention: boolean}} wanted
 * @param {bigint} seed
 * @param {AbortSignal} signal
 * @yields {object} the lines of the stream: start, preview, picture, end.
 */
export async function* askPictures({ caption, ...wanted }, seed, signal) {
  const rest = JSON.stringify({ ...wanted, captions: [caption], format: "json", stream: true });
  const response = await ask("generate", `{"seed": ${seed}, ${rest.slice(1)}`, signal); // larger than numbers are exact
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The server broke off. Is it still running?");
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const event of lines.map((line) => JSON.parse(line))) {
      if (event.event === "error") throw new Error(`${event.detail[0].toUpperCase()}${event.detail.slice(1)}.`);
      if (event.event === "end") return;
      yield event;
    }
  }
}
