/** Captions to word numbers, as attngan_deploy/media/tokenizer.py does it. */

const WORD = /[\p{L}\p{N}_]+/gu; // what Python's \w+ means

// What Python's INVISIBLE lists: it splits no word.
const INVISIBLE =
  /[\p{Cf}\p{Variation_Selector}\0-\x08\x0e-\x1b\x7f\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u{13430}-\u{1343f}]/gu;

/** Lower-cased words of a caption in NFC, without what is invisible. */
export const splitWords = (text) => text.replace(INVISIBLE, "").normalize("NFC").toLowerCase().match(WORD) ?? [];

/** A vocabulary: word to index and back. Index 0 is the padding word, which no caption can contain. */
export class Tokenizer {
  /** @param {string} vocabulary the text of `vocabulary.txt`: one word a line. */
  constructor(vocabulary) {
    this.words = vocabulary.replaceAll("\r\n", "\n").replace(/\n$/, "").split("\n");
    this.index = new Map(this.words.map((word, place) => [word, place]).slice(1));
  }

  /** The known words of a caption as `ids`, in order, and its `unknown` words, each once. */
  encode(text) {
    const words = splitWords(text);
    return {
      ids: words.filter((word) => this.index.has(word)).map((word) => this.index.get(word)),
      unknown: [...new Set(words.filter((word) => !this.index.has(word)))],
    };
  }
}
