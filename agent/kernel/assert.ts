/** Thrown when the program itself is wrong: crash, exit 70, restart, re-read the state. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** Checks what must hold whatever the input is; the sentence says what should have been true. */
export function assert(condition: boolean, sentence: string): asserts condition {
  if (!condition) throw new AssertionError(sentence);
}

export function unreachable(value: never): never {
  throw new AssertionError(`no case for ${String(value)}`);
}
