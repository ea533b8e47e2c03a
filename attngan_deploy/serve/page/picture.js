/** One picture on the page: its preview, the picture itself, and what a word looked at. */

import { countedWords } from "./words.js";

const HEAT = [255, 64, 0]; // as in attngan_deploy/media/attention.py
const STRENGTH = 0.7;

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const pngOf = (text) => new Blob([bytesOf(text)], { type: "image/png" });

/** The pixels of a PNG. */
async function decode(png) {
  const bitmap = await createImageBitmap(png);
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

export class Picture {
  /**
   * @param {string} title what the picture is of, for those who do not see it.
   * @param {string} file its name when it is saved.
   */
  constructor(title, file) {
    this.title = title;
    this.element = document.createElement("figure");
    this.canvas = Object.assign(document.createElement("canvas"), { width: 128, height: 128 });
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `Not drawn yet: ${title}`);
    this.link = Object.assign(document.createElement("a"), { download: file, textContent: "Save", hidden: true });
    this.link.setAttribute("aria-label", `Save as PNG: ${title}`);
    this.share = document.createElement("output");
    const caption = document.createElement("figcaption");
    caption.append(this.link, this.share);
    this.element.append(this.canvas, caption);
    this.words = [];
  }

  /** Show the first stage's picture, as large as the last one's. */
  async showPreview({ data }) {
    const bitmap = await createImageBitmap(pngOf(data));
    if (this.pixels) return; // the picture was faster
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
    this.canvas.setAttribute("aria-label", `Preview of ${this.title}`);
  }

  /** Show the picture, and keep what its words looked at. */
  async show({ data, attention }) {
    const png = pngOf(data);
    this.pixels = await decode(png);
    if (attention) {
      this.words = countedWords(attention.words);
      this.shares = attention.shares;
      this.maps = await decode(pngOf(attention.maps));
    }
    this.link.href = URL.createObjectURL(png);
    this.link.hidden = false;
    this.canvas.width = this.canvas.height = this.pixels.width;
    this.element.classList.add("drawn");
    this.tint(undefined);
  }

  /** Tint the picture where it looked at a word of `countedWords`; undefined for the plain picture. */
  tint(word) {
    if (!this.pixels) return;
    const place = this.words.indexOf(word);
    this.canvas.getContext("2d").putImageData(place < 0 ? this.pixels : this.#heated(place), 0, 0);
    this.share.value = place < 0 ? "" : `${Math.round(100 * this.shares[place])} %`;
    const about = place < 0 ? "" : `, tinted where it looked at “${word.split(" ")[0]}”`;
    this.canvas.setAttribute("aria-label", `${this.title}${about}`);
  }

  /** Give back what the browser keeps for the saved file. */
  forget() {
    if (this.link.href) URL.revokeObjectURL(this.link.href);
  }

  #heated(place) {
    const { width: size, data } = this.pixels;
    const side = this.maps.width;
    const small = new OffscreenCanvas(side, side);
    small.getContext("2d").putImageData(this.maps, 0, -place * side);
    const large = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
    large.drawImage(small, 0, 0, size, size);
    const heat = large.getImageData(0, 0, size, size).data;
    const tinted = new ImageData(size, size);
    for (let at = 0; at < data.length; at += 4) {
      const weight = (STRENGTH * heat[at]) / 255;
      const grey = (data[at] + data[at + 1] + data[at + 2]) / 3;
      for (let channel = 0; channel < 3; channel++) {
        tinted.data[at + channel] = grey * (1 - weight) + HEAT[channel] * weight;
      }
      tinted.data[at + 3] = 255;
    }
    return tinted;
  }
}
