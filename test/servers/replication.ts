/** Replicas of throw-away databases: real replication between two of them, and its promotion. */
import { setTimeout as sleep } from "node:timers/promises";
import type { DatabaseServer } from "./database.ts";
import type { KindOptions, ServerKind } from "./matrix.ts";

const account = "'replicator'@'%'";
const password = "replicator-password";

/**
 * Starts a replica that writes its own binlog. Call it before anything is written to the primary,
 * whose binlog must be whole. By GTID where the kind has them, else by file and position.
 */
export async function startReplica(
  kind: ServerKind,
  primary: DatabaseServer,
  options: KindOptions = {},
): Promise<DatabaseServer> {
  // MySQL's default; a MariaDB's binlog has else nothing of what it replicates.
  const args = [...(options.args ?? []), "--log-slave-updates"];
  const replica = await kind.start({ serverId: 2, ...options, args });
  try {
    await prepareUser(primary);
    await replica.query(sourceSql(kind, primary.port));
    await replica.query(replicaWords(replica).start);
  } catch (thrown) {
    await replica.stop();
    throw thrown;
  }
  return replica;
}

async function prepareUser(primary: DatabaseServer): Promise<void> {
  const known = await primary.query("SELECT 1 FROM mysql.user WHERE User = 'replicator'");
  if (known.length > 0) return;
  await primary.query(
    `CREATE USER ${account} IDENTIFIED BY '${password}'; GRANT REPLICATION SLAVE ON *.* TO ${account}`,
  );
}

function sourceSql(kind: ServerKind, port: number): string {
  if (kind.flavour === "mariadb") {
    return `CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=${port}, MASTER_USER='replicator',
      MASTER_PASSWORD='${password}', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos`;
  }
  const place = kind.hasGtids
    ? "SOURCE_AUTO_POSITION=1"
    : "SOURCE_LOG_FILE='binlog.000001', SOURCE_LOG_POS=4";
  return `CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=${port}, SOURCE_USER='replicator',
    SOURCE_PASSWORD='${password}', SOURCE_CONNECT_RETRY=1, SOURCE_SSL=0, GET_SOURCE_PUBLIC_KEY=1, ${place}`;
}

function replicaWords({ flavour }: DatabaseServer): {
  readonly start: string;
  readonly stop: string;
  readonly forget: string;
  readonly status: string;
} {
  const word = flavour === "mariadb" ? "SLAVE" : "REPLICA";
  return {
    start: `START ${word}`,
    stop: `STOP ${word}`,
    forget: `RESET ${word} ALL`,
    status: `SHOW ${word} STATUS`,
  };
}

/** Waits until the replica has applied everything that the primary has written. */
export async function replicated(primary: DatabaseServer, replica: DatabaseServer): Promise<void> {
  const [at] = await primary.query(
    primary.flavour === "mariadb" ? "SHOW MASTER STATUS" : "SHOW BINARY LOG STATUS",
  );
  const deadline = Date.now() + 120_000;
  for (;;) {
    const [status] = await replica.query(replicaWords(replica).status);
    const mariadb = replica.flavour === "mariadb";
    const file = status?.[mariadb ? "Relay_Master_Log_File" : "Relay_Source_Log_File"];
    const position = Number(status?.[mariadb ? "Exec_Master_Log_Pos" : "Exec_Source_Log_Pos"]);
    if (file === at?.["File"] && position >= Number(at?.["Position"])) return;
    const fault = `${String(status?.["Last_IO_Error"])} ${String(status?.["Last_SQL_Error"])}`;
    if (Date.now() > deadline || fault.trim() !== "") {
      throw new Error(`the replica stands at ${String(file)}:${position}: ${fault}`);
    }
    await sleep(50);
  }
}

/** Holds back what the primary writes from now on. */
export async function pauseReplication(replica: DatabaseServer): Promise<void> {
  await replica.query(replicaWords(replica).stop);
}

export async function resumeReplication(replica: DatabaseServer): Promise<void> {
  await replica.query(replicaWords(replica).start);
}

/** From now on it is nobody's replica. */
export async function promote(replica: DatabaseServer): Promise<void> {
  const { stop, forget } = replicaWords(replica);
  await replica.query(stop);
  await replica.query(forget);
}
