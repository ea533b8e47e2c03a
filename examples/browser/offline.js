/** Makes the next visit work without a network, and says whether it will. */

const container = navigator.serviceWorker; // only pages from https or localhost have it
let isOutdated = false;
let announce = () => {};

// The first visit has no controller, and gets none: a new one is a new version of the site.
container?.addEventListener("controllerchange", () => {
  isOutdated = true;
  announce();
});

/**
 * Install the service worker, and keep every file of the site.
 *
 * @param {() => Promise<string[]>} keepAll keeps all files, and returns those that there is no room for.
 * @param {(text: string) => void} tell shows how it stands, in one line; called again when that changes.
 */
export async function keepForOffline(keepAll, tell) {
  const say = (text) => tell(isOutdated ? "A new version of this page is ready: reload to get it." : text);
  announce = say;
  if (!container) return say("This page needs a connection: only pages from https or localhost can work offline.");
  say("Keeping this page for use without a connection");
  try {
    await container.register("service-worker.js", { type: "module", updateViaCache: "none" });
    await container.ready;
    const left = (await keepAll()).length;
    const noRoom = `This page needs a connection: the browser has no room to keep ${left} of its files.`;
    say(left ? noRoom : "Ready to work offline.");
  } catch (error) {
    say(`This page needs a connection: ${error.message}`);
  }
}
