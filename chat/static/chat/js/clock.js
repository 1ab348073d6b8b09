/** The server's clock, as far as it is known: a person's own may be minutes away from it. */
let aheadMs = 0;

/** The server has just said what time it has. */
export function setServerTime(unixMs) {
  aheadMs = unixMs - Date.now();
}

/** What time the server has now, in Unix milliseconds. */
export function serverNow() {
  return Date.now() + aheadMs;
}
