/** The time of day as the server's pages write it, to the millisecond: in its time zone, not ours. */
export function serverClock(ms = Date.now()) {
  const offset = Number(document.body.dataset.adminUtcOffset ?? 0) * 1_000;
  return new Date(ms + offset).toISOString().slice(11, 23);
}
