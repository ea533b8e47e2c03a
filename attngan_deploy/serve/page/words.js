/** The words of a caption, and the marks under those that no model knows. */

const WORD = /[\p{L}\p{N}_][\p{L}\p{N}_\p{M}\p{Cf}]*/gu; // what Python's \w+ means, and what normalising takes away

/** A word as the server calls it. */
const plain = (word) => word.replace(/[\p{Cf}\p{Variation_Selector}]/gu, "").normalize("NFC").toLowerCase();

/**
 * Show a caption with marks under some of its words.
 *
 * @param {HTMLElement} place lies under the text area.
 * @param {string} caption as it is typed.
 * @param {Set<string>} unknown words in lower case.
 */
export function showMarks(place, caption, unknown) {
  const parts = [];
  let end = 0;
  for (const { 0: word, index } of caption.matchAll(WORD)) {
    if (!unknown.has(plain(word))) continue;
    const mark = document.createElement("mark");
    mark.textContent = word;
    parts.push(caption.slice(end, index), mark);
    end = index + word.length;
  }
  place.replaceChildren(...parts, caption.slice(end), "\u200b"); // which gives a last empty line its height
}

/** The caption with every `word`, in whatever case, replaced. */
export const replaceWord = (caption, word, by) =>
  caption.replace(WORD, (found) => (plain(found) === word ? by : found));

/** Words with the number of times that each stood before, so that the same word of two models is found again. */
export function countedWords(words) {
  const counts = new Map();
  return words.map((word) => {
    const before = counts.get(word) ?? 0;
    counts.set(word, before + 1);
    return `${word} ${before}`;
  });
}
