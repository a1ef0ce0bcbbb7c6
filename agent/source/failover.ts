/**
 * Going on at another server than the one that the checkpoint knows: after a failover to a promoted
 * replica, or when the agent is pointed at another replica. Files and positions mean nothing there;
 * only one history of GTIDs leads from the one to the other.
 */
import { type Checkpoint, nextEpoch } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { FILE_START } from "./binlog-event.ts";
import { type ControlConnection, textOf } from "./control-connection.ts";
import { positionLost } from "./position-loss.ts";
import type { ServerFacts } from "./server-facts.ts";
import type { Flavour } from "./stream-progress.ts";

/** What is known of a server in a checkpoint; a MariaDB has no uuid. */
type ServerIdentity = Pick<Checkpoint, "serverId" | "serverUuid">;

/** A copy with the same uuid is told apart by its id, but not here: it is no failover. */
export function isOtherServer(from: ServerIdentity, facts: ServerFacts): boolean {
  if (facts.serverUuid !== from.serverUuid) return true;
  return facts.serverUuid === null && facts.serverId !== from.serverId;
}

export function serverName({ serverId, serverUuid }: ServerIdentity): string {
  return serverUuid === null ? String(serverId) : `${serverId} (${serverUuid})`;
}

/**
 * Throws POSITION_LOST when no GTIDs can lead to this server. The transactions that the checkpoint
 * has and the server lacks are not looked at: it may be about to get them (`missingGtids`).
 */
export async function requireGtidPath(
  control: ControlConnection,
  from: Checkpoint,
  facts: ServerFacts,
): Promise<string> {
  const lost = (why: string) =>
    positionLost(
      "other_server",
      `the state belongs to server ${serverName(from)}, and this is server ${serverName(facts)}; ${why}`,
    );
  if ((from.serverUuid === null) !== (facts.serverUuid === null)) {
    throw lost("one is a MySQL and one a MariaDB, which share no GTIDs");
  }
  if (from.gtidSet === null || from.gtidSet === "") {
    throw lost("without GTIDs a position means nothing on another server");
  }
  if (facts.flavour === "mysql") {
    const [row] = await control.query("SELECT @@GLOBAL.gtid_mode AS mode");
    const mode = textOf(row, "mode");
    if (mode !== "ON") throw lost(`its gtid_mode is ${mode}, so it cannot say where those GTIDs are`);
  }
  return from.gtidSet;
}

/**
 * GTIDs of everything that was delivered, whole or in part: of a transaction that was half done, what
 * was delivered stays with consumers when the other server never got it.
 */
export function deliveredGtids({ partial }: Pick<Checkpoint, "partial">, gtidSet: string): string {
  const half = partial !== null && partial.ordinal > 0 ? (partial.gtid ?? null) : null;
  return half === null ? gtidSet : `${gtidSet},${half}`;
}

/** Those of the GTIDs that the server's own history lacks, as text; "" when it has them all. */
export async function missingGtids(
  control: ControlConnection,
  flavour: Flavour,
  gtidSet: string,
): Promise<string> {
  if (flavour === "mysql") {
    const [row] = await control.query("SELECT GTID_SUBTRACT(?, @@GLOBAL.gtid_executed) AS missing", [
      gtidSet,
    ]);
    return textOf(row, "missing").replace(/\s/g, "");
  }
  const [row] = await control.query("SELECT @@gtid_binlog_state AS state");
  return missingMariadbGtids(textOf(row, "state"), gtidSet);
}

/** `state` has the last number of every domain and server that the binlog has seen. */
export function missingMariadbGtids(state: string, gtidSet: string): string {
  const newest = new Map<string, bigint>();
  for (const entry of entriesOf(state)) {
    const [domain = "", server = "", number = "0"] = entry.split("-");
    newest.set(`${domain}-${server}`, BigInt(number));
  }
  return entriesOf(gtidSet)
    .filter((entry) => {
      const [domain = "", server = "", number = "0"] = entry.split("-");
      const known = newest.get(`${domain}-${server}`);
      return known === undefined || known < BigInt(number);
    })
    .join(",");
}

function entriesOf(gtids: string): string[] {
  return gtids
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");
}

/** Transactions were read that this server does not have: it waits a while for them, then not any more. */
export function lacksTransactions(
  from: Checkpoint,
  facts: ServerFacts,
  missing: string,
  isPatient: boolean,
): AgentError {
  const what = `GTID ${missing.slice(0, 300)}, which was read from server ${serverName(from)}`;
  if (isPatient) {
    return new AgentError(
      "SOURCE_UNREACHABLE",
      `server ${serverName(facts)} does not have ${what}; it may still be replicating`,
      { hint: "Nothing to do while the new server catches up." },
    );
  }
  return positionLost(
    "errant_tail",
    `server ${serverName(facts)} took the place of another one and never got ${what}`,
  );
}

/**
 * The checkpoint as the new server's: done is what its GTIDs say, and the place is not known yet.
 * The epoch rises, because sequences count files and positions, and those of the new server can be
 * lower. Of a transaction that was half done the new server's own copy is read from its start: its
 * bytes, and so the cut of its parts, need not be the same.
 */
export function atOtherServer(from: Checkpoint, facts: ServerFacts, nowMs: number): Checkpoint {
  return {
    ...from,
    epoch: nextEpoch(from, nowMs),
    file: "",
    position: 0,
    resumePosition: FILE_START,
    serverId: facts.serverId,
    serverUuid: facts.serverUuid,
    lastTransaction: null,
    partial: null,
  };
}
