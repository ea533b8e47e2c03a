/** The command that makes the same pictures in a shell; examples/browser has this file too. */

const PLAIN = /^[\p{L}\p{N} ,.;:'()-]+$/u; // means itself between double quotes, in every shell

const quote = (text) => (PLAIN.test(text) ? `"${text}"` : `'${text.replaceAll("'", "'\\''")}'`);

/**
 * @param {{caption: string, seed: bigint, model: string, count?: number}} wanted count: pictures of the caption.
 * @returns {string} one line; white space in the caption becomes plain, which changes no word.
 */
export function commandFor({ caption, seed, model, count = 1 }) {
  const several = count > 1 ? ` --n ${count}` : "";
  const text = quote(caption.trim().replace(/\s+/g, " "));
  const words = caption.match(/[a-z0-9]{4,}/gi) ?? []; // a folder for each caption: one holds one run
  const folder = [model, seed, ...words.slice(0, 4)].join("-");
  return `t2i generate --caption ${text} --model ${model} --seed ${seed}${several} -o ${folder}`;
}

/**
 * Show commands, a line each, none of whose words breaks at a hyphen, as "--" and "model" would.
 *
 * @param {HTMLElement} place
 * @param {string[]} commands
 */
export function showCommands(place, commands) {
  const parts = commands.join("\n").split(/(\s+)/);
  place.replaceChildren(
    ...parts.map((text) => {
      if (!text.includes("-")) return text;
      return Object.assign(document.createElement("span"), { className: "whole", textContent: text });
    }),
  );
}

/**
 * Copy what an element says; where the browser forbids that, select it, so that a person can.
 *
 * @param {HTMLElement} place
 * @returns {Promise<string>} what to tell them.
 */
export async function copyTextOf(place) {
  try {
    await navigator.clipboard.writeText(place.textContent);
    return "Copied";
  } catch {
    getSelection().selectAllChildren(place);
    return "The browser does not let this page copy; the text is selected";
  }
}
