/**
 * Loaded into each process of a test run (`--import`). What a process writes into a pipe that is full is
 * kept in its memory, and gone when it ends by `process.exit`: a report lost its tail whenever its
 * reader was slow. From here on a write returns when the pipe has taken it all.
 */
interface Handle {
  setBlocking(blocks: boolean): unknown;
}

function canBlock(handle: unknown): handle is Handle {
  return typeof handle === "object" && handle !== null && "setBlocking" in handle;
}

for (const stream of [process.stdout, process.stderr]) {
  // Files and terminals have no such handle, or write at once anyway.
  const handle: unknown = "_handle" in stream ? stream._handle : null;
  if (canBlock(handle)) handle.setBlocking(true);
}
