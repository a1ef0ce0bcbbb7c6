/** UUIDv5 by the letter of RFC 9562, on purpose without the agent's own code: the oracle's half. */
import { createHash } from "node:crypto";

export function uuidV5(namespace: string, name: string): string {
  const space = Buffer.from(namespace.replaceAll("-", ""), "hex");
  if (space.length !== 16) throw new Error(`"${namespace}" is not a UUID`);
  const hex = createHash("sha1").update(space).update(name, "utf8").digest("hex");
  const variant = ((Number.parseInt(hex.slice(16, 18), 16) & 0x3f) | 0x80).toString(16);
  const parts = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `5${hex.slice(13, 16)}`,
    `${variant}${hex.slice(18, 20)}`,
    hex.slice(20, 32),
  ];
  return parts.join("-");
}
