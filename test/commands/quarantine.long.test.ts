/** `quarantine ls|show|retry|drop` as a child process, against an agent's sockets and a stopped one. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { quarantineCommands, readOnlyCommands } from "../../agent/commands/admin-commands.ts";
import type { ReadAgainAnswer } from "../../agent/commands/quarantine-desk.ts";
import { controlSocketsIn } from "../../agent/config/derived.ts";
import { ControlServer } from "../../agent/control/control-server.ts";
import { DaprClient } from "../../agent/forward/dapr-client.ts";
import { Forwarder } from "../../agent/forward/forwarder.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import { observerOf, options } from "../forward/fakes.ts";
import { LinesLog } from "../observe/facts.ts";
import { type DaprStandIn, startDaprStandIn } from "../servers/dapr-stand-in.ts";
import { checkpoint, eventually, openSpool } from "../spool/fixtures.ts";
import { Changes, context, makeTransform, partOf } from "../transform/parts.ts";
import { sampleOf } from "../transform/rows.ts";

const main = join(import.meta.dirname, "..", "..", "agent", "main.ts");
const directory = mkdtempSync(join(tmpdir(), "mea-quarantine-"));
const runDirectory = join(directory, "run");
const stateDir = join(directory, "state");
const transform = makeTransform();
const log = new LinesLog();
let standIn: DaprStandIn;
let spool: Spool;
let forwarder: Forwarder;
let client: DaprClient;
let servers: ControlServer[] = [];
let position = 0;

/** What comes of reading rows again in the place of overtaken events. */
let readAgain: ReadAgainAnswer = { refused: "no rows are read here" };

/** Whatever holds one of these texts is refused for its content, unless it is a dead letter. */
const refusedTexts = new Set<string>();

before(async () => {
  standIn = await startDaprStandIn();
  standIn.setScript(({ topic, entries }) => {
    const isRefused = entries.some(({ event }) => [...refusedTexts].some((text) => event.includes(text)));
    return topic !== "migration.dlq" && isRefused ? { kind: "answer", status: 413, body: "" } : null;
  });
  mkdirSync(runDirectory);
  spool = await openSpool(stateDir);
  client = new DaprClient({ endpoint: standIn.endpoint, pubsub: "pubsub", token: () => null }, systemClock);
  const parts = { reader: spool, publisher: client, encoder: transform.control, clock: systemClock };
  forwarder = new Forwarder({ ...parts, observer: observerOf() }, options);
  forwarder.run().catch(() => undefined);
  const agent = { spool, forwarder };
  const sockets = controlSocketsIn(runDirectory);
  servers = [
    new ControlServer({
      path: sockets.readOnly,
      mode: 0o660,
      audited: false,
      log,
      commands: readOnlyCommands(agent, async () => ({})),
    }),
    new ControlServer({
      path: sockets.admin,
      mode: 0o600,
      audited: true,
      log,
      commands: quarantineCommands(agent, async (ids) => new Map(ids.map((one) => [one, readAgain]))),
    }),
  ];
  for (const server of servers) await server.open();
});

async function stopAgent(): Promise<void> {
  for (const server of servers.splice(0)) await server.close();
  await forwarder.stop();
  await client.close();
  await spool.close();
}

after(async () => {
  await stopAgent();
  await standIn.stop();
  rmSync(directory, { recursive: true, force: true });
});

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

async function run(...words: readonly string[]): Promise<Ran> {
  const child = spawn(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", main, "quarantine", ...words],
    {
      env: { PATH: process.env["PATH"], STATE_DIR: stateDir, RUNTIME_DIRECTORY: runDirectory },
    },
  );
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, out, err };
}

/** One coupon event with the code given, captured as one transaction of its own. */
async function capture(couponId: number, code: string): Promise<void> {
  position += 100;
  const row = { ...sampleOf("coupon").row, coupon_id: couponId, code };
  const end = { file: "b.000001", position };
  const part = partOf(new Changes(transform).insert("salesrule_coupon", row).list, {
    end,
    gtid: `0-1-${position}`,
  });
  await spool.append({ events: transform.encode(part, context), checkpoint: checkpoint(position) });
}

async function drained(): Promise<void> {
  const isDrained = (): boolean => spool.queues().every(({ acked, last }) => acked === last);
  await eventually(isDrained, "everything is acknowledged");
}

async function rows(): Promise<Record<string, unknown>[]> {
  const ran = await run("ls", "--json");
  assert.equal(ran.code, 0, ran.err);
  return JSON.parse(ran.out).events;
}

describe("quarantine", () => {
  it("lists key, code and age without row data, and shows the payload to root alone", async () => {
    refusedTexts.add("GEHEIM");
    await capture(1, "GEHEIM-1");
    await capture(2, "GEHEIM-2");
    await capture(3, "fine");
    await drained();
    const [row, other] = await rows();
    assert.ok(row !== undefined && other !== undefined);
    assert.deepEqual(
      [row["entity"], row["magento_id"], row["topic"], row["code"], row["attempts"]],
      ["coupon", 1, "migration.coupon.changed", "HTTP_413", 1],
    );
    assert.deepEqual([row["dead_letter_accepted"], row["newer_sequence"]], [true, null]);
    assert.ok(Number(row["bytes"]) > 500 && Number(row["age_seconds"]) < 60);
    const listed = await run("ls");
    assert.ok(listed.out.includes("HTTP_413") && listed.out.includes("coupon"));
    assert.ok(!listed.out.includes("GEHEIM") && !JSON.stringify(row).includes("GEHEIM"));
    const id = String(row["id"]);
    const shown = await run("show", id.slice(0, 8), "--json");
    assert.equal(shown.code, 0, shown.err);
    const parsed = JSON.parse(shown.out);
    assert.equal(JSON.parse(parsed.event).data.code, "GEHEIM-1");
    assert.ok((await run("show", id)).out.includes("GEHEIM-1"));
    assert.ok(!JSON.stringify(log.lines).includes("GEHEIM"), "no row data in the log");
    assert.ok(
      log.lines.some(({ fields }) => fields["command"] === "quarantine.show"),
      "root's commands are logged",
    );
  });

  it("refuses what is unknown, in doubt, or not really meant", async () => {
    const missing = await run("show", "0123456789");
    assert.equal(missing.code, 1);
    assert.match(missing.err, /^COMMAND_REFUSED: no event in quarantine has the id "0123456789"/);
    assert.equal((await run("show")).code, 64);
    assert.equal((await run("retry")).code, 64);
    assert.equal((await run("drop", "--all")).code, 64, "drop wants --yes");
    assert.equal((await run("drop", "x", "--all", "--yes")).code, 64);
    assert.equal((await rows()).length, 2, "nothing was dropped");
  });

  it("retries: still refused, accepted, and not after a newer event of the entity", async () => {
    const [first, second] = await rows();
    const id = String(first?.["id"]);
    const again = await run("retry", id, "--json");
    assert.equal(again.code, 1);
    const [line] = JSON.parse(again.out).events;
    assert.deepEqual([line.outcome, line.code], ["refused", "HTTP_413"]);
    assert.equal((await rows())[0]?.["attempts"], 2);
    await capture(2, "repaired");
    await drained();
    refusedTexts.clear();
    const all = await run("retry", "--all", "--json");
    assert.equal(all.code, 1, "one of the two is not sent");
    const outcomes = JSON.parse(all.out).events.map((one: { outcome: string; code: string }) => [
      one.outcome,
      one.code,
    ]);
    assert.deepEqual(outcomes, [
      ["accepted", ""],
      ["not-sent", "NEWER_ACCEPTED"],
    ]);
    const [left, ...none] = await rows();
    assert.deepEqual([left?.["id"], none], [second?.["id"], []]);
    assert.ok(String(left?.["newer_sequence"]) > String(left?.["sequence"]));
    const text = await run("retry", String(left?.["id"]));
    assert.match(
      text.out,
      /not-sent: a newer event .* was accepted; no rows are read here \(newer: \d{10}\./,
    );
    readAgain = { resync: 7 };
    const instead = await run("retry", String(left?.["id"]));
    assert.equal(instead.code, 0);
    assert.match(instead.out, /read-again: a newer event .* was accepted; resync 7 sends the state of now/);
    assert.match((await run("ls")).out, /a newer event was accepted/);
  });

  it("drops on the running agent", async () => {
    assert.equal((await run("drop", "--all", "--yes")).out, "1 dropped\n");
    assert.equal((await run("ls")).out, "nothing is in quarantine\n");
    assert.equal((await run("retry", "--all")).code, 0);
  });

  it("works on the directory of a stopped agent, but for retries", async () => {
    refusedTexts.add("POISON");
    await capture(7, "POISON");
    await drained();
    await stopAgent();
    const [row] = await rows();
    assert.equal(row?.["magento_id"], 7);
    const id = String(row?.["id"]);
    assert.ok((await run("show", id)).out.includes("POISON"));
    const retry = await run("retry", id);
    assert.equal(retry.code, 69);
    assert.match(retry.err, /only the running agent can send an event/);
    assert.equal((await run("drop", id, "--yes")).out, "1 dropped\n");
    assert.deepEqual(await rows(), []);
  });
});
