/** What was made since the page was opened, newest first; examples/browser has this file too. */

const KEPT = 24;

export class PastPictures {
  /**
   * @param {HTMLElement} list where the small pictures go; the element around it is shown with the second of them.
   * @param {(made: object) => void} show called with what was added when a person chooses it; false where it can't.
   * @param {(made: object) => void} drop called with what is no longer kept.
   */
  constructor(list, show, drop = () => {}) {
    Object.assign(this, { list, show, drop, entries: [] });
  }

  /**
   * Keep what was made; the same made again replaces it.
   *
   * @param {string} key the same for the same pictures.
   * @param {string} title what they are of.
   * @param {HTMLCanvasElement[]} pictures a small one of each is shown.
   * @param {object} made what `show` needs to show them again.
   */
  add(key, title, pictures, made) {
    const button = Object.assign(document.createElement("button"), { type: "button", title });
    button.setAttribute("aria-label", `Show again: ${title}`);
    button.append(...pictures.map(smaller));
    const entry = { key, button, made };
    button.onclick = () => {
      if (this.show(made) !== false) this.#mark(entry);
    };
    this.entries.filter((each) => each.key === key).forEach((each) => this.#remove(each));
    this.entries.unshift(entry);
    this.list.prepend(button);
    this.entries.slice(KEPT).forEach((each) => this.#remove(each));
    this.list.parentElement.hidden = this.entries.length < 2;
    this.#mark(entry);
  }

  #mark(shown) {
    for (const entry of this.entries) entry.button.setAttribute("aria-pressed", String(entry === shown));
  }

  #remove(entry) {
    this.entries.splice(this.entries.indexOf(entry), 1);
    entry.button.remove();
    this.drop(entry.made);
  }
}

/** A copy of a picture, as it is now. */
function smaller(picture) {
  const copy = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  copy.getContext("2d").drawImage(picture, 0, 0, 64, 64);
  return copy;
}
