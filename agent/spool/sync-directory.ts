import { open } from "node:fs/promises";

/** Makes the names in the directory durable: what was made, renamed or removed in it before. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
