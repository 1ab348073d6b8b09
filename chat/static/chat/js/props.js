/** The props of an app's entity after a frame of it, which tells what has changed. */
export function changed(props, { props: told, removed = [] }) {
  const after = { ...props, ...told };
  for (const name of removed) delete after[name];
  return after;
}
