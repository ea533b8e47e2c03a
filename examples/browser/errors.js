/** What went wrong, as one line that a person can act on. */
export function describe(error) {
  const text = String(error?.message ?? error).split("\n")[0];
  const isMemory = error instanceof RangeError || /bad_alloc|\boom\b|out of memory|allocat|memory access/i.test(text);
  return isMemory ? `There is not enough memory. Close other tabs, then reload. (${text})` : text;
}
