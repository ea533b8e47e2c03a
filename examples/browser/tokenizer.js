/** Captions to word numbers, as attngan_deploy/media/tokenizer.py does it. */

const WORD = /[\p{L}\p{N}_]+/gu; // what Python's \w+ means

/** Lower-cased words of a caption. */
export const splitWords = (text) => text.toLowerCase().match(WORD) ?? [];

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
