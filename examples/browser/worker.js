/** Runs the model beside the page, so that the page stays alive while it computes. */

import { describe } from "./errors.js";
import { TextToImage, bytesOf } from "./model.js";
import { fetchFile, missing } from "./store.js";

let model;

const actions = {
  /** Load a model and its engine, telling how much has come. */
  async load({ name, engine }) {
    const total = bytesOf(name, engine);
    let loaded = 0;
    await model?.release();
    model = undefined;
    model = await TextToImage.load(name, engine, (bytes) => {
      loaded += bytes;
      postMessage({ progress: { loaded, total } });
    });
    return model.facts();
  },

  async generate({ caption, seed }) {
    return model.generate(caption, seed);
  },

  /** Keep every file of the site that is not kept yet; returns what there was no room for. */
  async keepAll() {
    for (const path of await missing()) await fetchFile(path);
    return missing();
  },
};

self.onmessage = async ({ data: { id, action, ...values } }) => {
  try {
    postMessage({ id, result: await actions[action](values) });
  } catch (error) {
    postMessage({ id, error: describe(error) });
  }
};
