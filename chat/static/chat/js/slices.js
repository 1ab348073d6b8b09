/** Work that can wait, done a little at a time, so that a long conversation never holds the page up. */

/** After so much of it the browser has its turn. */
const SLICE_MS = 4;

const waiting = [];
let planned = false;

/** Does the work soon. The newest goes first: it stands where people look. */
export function soon(work) {
  waiting.push(work);
  plan();
}

function plan() {
  if (planned || waiting.length === 0) return;
  planned = true;
  setTimeout(slice);
}

function slice() {
  planned = false;
  const end = performance.now() + SLICE_MS;
  try {
    while (waiting.length > 0 && performance.now() < end) waiting.pop()();
  } finally {
    plan();
  }
}
