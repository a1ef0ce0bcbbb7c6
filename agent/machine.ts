/**
 * Which machine this is, in facts that a clone does not share with its origin. Three witnesses:
 * the machine-id, the firmware's UUID of the (virtual) machine, and the addresses of its network
 * cards. A missed clone writes a staging shop into production; a false alarm stops the feed of a
 * shop until somebody says `adopt`. So no single part that is exchanged or upgraded may raise it:
 * see `differencesOf`. Facts are kept as digests: none of them leaves the host in clear.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";

export interface MachineFacts {
  /** Null where there is none, as in many containers. */
  readonly machineId: string | null;
  /** Null where it cannot be read: only root may, or the unit that leaves it in the runtime directory. */
  readonly productUuid: string | null;
  /** Of network cards, not of bridges, tunnels and container ends. Sorted. */
  readonly networkCards: readonly string[];
  /** In clear, for messages; weighs only beside another difference. */
  readonly hostName: string;
}

export interface MachinePlaces {
  /** "/" but in tests. */
  readonly root: string;
  /** Where the unit leaves what only root can read; null without one. */
  readonly runtimeDirectory: string | null;
}

export function readMachine({ root, runtimeDirectory }: MachinePlaces): MachineFacts {
  const machineId = readText(join(root, "etc/machine-id"));
  const uuid =
    readText(join(root, "sys/class/dmi/id/product_uuid")) ??
    (runtimeDirectory === null ? null : readText(join(runtimeDirectory, "product-uuid")));
  return {
    machineId: machineId !== null && /^[0-9a-f]{32}$/.test(machineId) ? digest(machineId) : null,
    productUuid: uuid === null ? null : uuidDigest(uuid),
    networkCards: readNetworkCards(join(root, "sys/class/net")).map(digest).sort(),
    hostName: readText(join(root, "proc/sys/kernel/hostname")) ?? hostname(),
  };
}

/**
 * Why this is another machine than the remembered one; empty when it is the same.
 *
 * - Another machine-id: another machine. It changes with a new installation only.
 * - The same firmware UUID, or one network card in common: the same machine, so that a new network
 *   card, a firmware upgrade or a move to another host does not stop the feed.
 * - Another firmware UUID and no card in common: a clone, whatever its machine-id says.
 * - UUID unknown, no card in common: a clone if its host name differs too; else a new card.
 */
export function differencesOf(remembered: MachineFacts, now: MachineFacts): string[] {
  if (remembered.machineId !== null && now.machineId !== null && remembered.machineId !== now.machineId) {
    return ["it has another machine-id"];
  }
  const uuid = compare(remembered.productUuid, now.productUuid);
  const known = remembered.networkCards.length > 0 && now.networkCards.length > 0;
  const shares = now.networkCards.some((card) => remembered.networkCards.includes(card));
  if (uuid === "same" || (known && shares)) return [];
  const cards = known ? ["it has other network cards"] : [];
  if (uuid === "differs") return ["its firmware has another UUID", ...cards];
  return known && remembered.hostName !== now.hostName ? [...cards, "it has another host name"] : [];
}

/** What is remembered of the same machine from now on: what cannot be read today stays as it was. */
export function mergeFacts(remembered: MachineFacts, now: MachineFacts): MachineFacts {
  return {
    machineId: now.machineId ?? remembered.machineId,
    productUuid: now.productUuid ?? remembered.productUuid,
    networkCards: now.networkCards.length > 0 ? now.networkCards : remembered.networkCards,
    hostName: now.hostName,
  };
}

export function isMachineFacts(value: unknown): value is MachineFacts {
  if (typeof value !== "object" || value === null) return false;
  if (!("machineId" in value && "productUuid" in value && "networkCards" in value && "hostName" in value))
    return false;
  const { machineId, productUuid, networkCards, hostName } = value;
  return (
    (machineId === null || typeof machineId === "string") &&
    (productUuid === null || typeof productUuid === "string") &&
    Array.isArray(networkCards) &&
    networkCards.every((card) => typeof card === "string") &&
    typeof hostName === "string"
  );
}

function compare(remembered: string | null, now: string | null): "same" | "differs" | "unknown" {
  if (remembered === null || now === null) return "unknown";
  return remembered === now ? "same" : "differs";
}

/** Boards whose maker gave them all the same one, or none. */
const noUuid = new Set([
  "00000000-0000-0000-0000-000000000000",
  "ffffffff-ffff-ffff-ffff-ffffffffffff",
  "03000200-0400-0500-0006-000700080009",
  "12345678-1234-5678-90ab-cddeefaabbcc",
]);

/** Kernels disagree on case, and on the order of the bytes in the first three groups. */
function uuidDigest(text: string): string | null {
  const plain = text.toLowerCase();
  const groups = /^([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4}-[0-9a-f]{12})$/.exec(plain);
  if (groups === null) return null;
  const [, first = "", second = "", third = "", rest = ""] = groups;
  const swapped = `${[first, second, third].map(swapBytes).join("-")}-${rest}`;
  if (noUuid.has(plain) || noUuid.has(swapped)) return null;
  return digest(plain < swapped ? plain : swapped);
}

function swapBytes(hex: string): string {
  return Buffer.from(hex, "hex").reverse().toString("hex");
}

/** Cards hang on a device; what software made does not. Random addresses are no fact. */
function readNetworkCards(directory: string): string[] {
  const cards: string[] = [];
  for (const name of namesIn(directory)) {
    const card = join(directory, name);
    const address = readText(join(card, "address"))?.toLowerCase() ?? "";
    const isRandom = readText(join(card, "addr_assign_type")) === "1";
    if (existsSync(join(card, "device")) && !isRandom && /^(?!00:00:00:00:00:00)[0-9a-f:]{17}$/.test(address))
      cards.push(address);
  }
  return cards;
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function readText(path: string): string | null {
  try {
    const text = readFileSync(path, "utf8").trim();
    return text === "" ? null : text;
  } catch {
    return null;
  }
}

function digest(text: string): string {
  return createHash("sha256").update(`magento-edge-agent machine\0${text}`).digest("hex").slice(0, 32);
}
