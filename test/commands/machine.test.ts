import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { adoptState, guardMachine } from "../../agent/adoption.ts";
import { type Checkpoint, nextEpoch } from "../../agent/change.ts";
import { AgentError } from "../../agent/kernel/errors.ts";
import { differencesOf, type MachineFacts, mergeFacts, readMachine } from "../../agent/machine.ts";

const shop: MachineFacts = {
  machineId: "m1",
  productUuid: "u1",
  networkCards: ["c1", "c2"],
  hostName: "shop",
};

describe("the machine that a state belongs to", () => {
  const same: Readonly<Record<string, Partial<MachineFacts>>> = {
    "a new network card": { networkCards: ["c3"] },
    "a card more and one less": { networkCards: ["c2", "c9"] },
    "a firmware upgrade that changed its UUID": { productUuid: "u2" },
    "a UUID that cannot be read today": { productUuid: null },
    "a UUID that cannot be read, and a new card": { productUuid: null, networkCards: ["c3"] },
    "a new host name": { hostName: "shop-1" },
    "no facts at all, as in a container": { machineId: null, productUuid: null, networkCards: [] },
  };
  for (const [what, change] of Object.entries(same)) {
    it(`is the same after ${what}`, () => assert.deepEqual(differencesOf(shop, { ...shop, ...change }), []));
  }

  const other: Readonly<Record<string, Partial<MachineFacts>>> = {
    "another machine-id": { machineId: "m2" },
    "a clone that kept its machine-id": { productUuid: "u2", networkCards: ["c7"] },
    "a clone without network cards": { productUuid: "u2", networkCards: [] },
    "a clone with a name of its own whose UUID cannot be read": {
      productUuid: null,
      networkCards: ["c7"],
      hostName: "staging",
    },
  };
  for (const [what, change] of Object.entries(other)) {
    it(`is another one with ${what}`, () =>
      assert.notDeepEqual(differencesOf(shop, { ...shop, ...change }), []));
  }

  it("keeps what cannot be read today", () => {
    const now = { machineId: "m1", productUuid: null, networkCards: [], hostName: "new" };
    assert.deepEqual(mergeFacts(shop, now), { ...shop, hostName: "new" });
  });
});

describe("the facts of a machine", () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "mea-machine-"));
  });
  afterEach(() => rmSync(root, { recursive: true }));
  const put = (path: string, text: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  const read = (): MachineFacts => readMachine({ root, runtimeDirectory: join(root, "run") });

  it("are digests of machine-id, firmware UUID and real network cards", () => {
    put("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    put("sys/class/dmi/id/product_uuid", "4C4C4544-0042-3510-8051-B7C04F4A4E31\n");
    put("sys/class/net/eth0/address", "52:54:00:12:34:56\n");
    put("sys/class/net/eth0/device/vendor", "x");
    put("sys/class/net/docker0/address", "02:42:00:00:00:01\n");
    const facts = read();
    assert.equal(facts.networkCards.length, 1);
    const text = JSON.stringify(facts);
    for (const clear of ["0123456789abcdef0123", "4c4c4544", "4C4C4544", "52:54:00"])
      assert.ok(!text.includes(clear), clear);
  });

  it("are the same when a kernel writes the UUID in other bytes or another case", () => {
    put("sys/class/dmi/id/product_uuid", "4C4C4544-0042-3510-8051-B7C04F4A4E31\n");
    const before = read();
    put("sys/class/dmi/id/product_uuid", "44454c4c-4200-1035-8051-b7c04f4a4e31\n");
    assert.equal(read().productUuid, before.productUuid);
    assert.notEqual(before.productUuid, null);
  });

  it("take the UUID that the unit left for a user who may not read it, and none that means nothing", () => {
    put("run/product-uuid", "4C4C4544-0042-3510-8051-B7C04F4A4E31\n");
    assert.notEqual(read().productUuid, null);
    put("run/product-uuid", "00000000-0000-0000-0000-000000000000\n");
    assert.equal(read().productUuid, null);
    put("etc/machine-id", "uninitialized\n");
    assert.equal(read().machineId, null);
  });
});

const checkpoint: Checkpoint = {
  formatVersion: 2,
  epoch: 1_000,
  file: "binlog.000001",
  position: 4,
  resumePosition: 4,
  gtidSet: null,
  serverId: 1,
  serverUuid: null,
  lastTransaction: null,
  partial: null,
  newestCommitMs: 3_000_500,
};

class MemoryState {
  readonly values = new Map<string, unknown>();
  now: Checkpoint | null = checkpoint;
  readonly meta = {
    get: async (name: string): Promise<unknown> => this.values.get(name),
    put: async (name: string, value: unknown): Promise<void> => void this.values.set(name, value),
  };
  checkpoint(): Checkpoint | null {
    return this.now;
  }
  async append(batch: { readonly checkpoint: Checkpoint }): Promise<void> {
    this.now = batch.checkpoint;
  }
}

describe("a state on another machine", () => {
  it("is named, stays untouched, and belongs to it after it was adopted, with a new instance and epoch", async () => {
    const state = new MemoryState();
    state.values.set("identity", { shop: "s", namespace: "n", instance: "i1" });
    assert.equal(await guardMachine(state.meta, shop), null);
    const clone = { ...shop, machineId: "m2", hostName: "staging" };
    const before = JSON.stringify([...state.values]);
    const reason = await guardMachine(state.meta, clone);
    assert.ok(reason instanceof AgentError);
    assert.equal(reason.code, "STATE_CLONED");
    assert.match(reason.message, /made on shop, and staging is another machine: it has another machine-id/);
    assert.match(reason.hint, /adopt/);
    assert.equal(JSON.stringify([...state.values]), before);
    const { instance, epoch } = await adoptState(state, clone, 2_000_000);
    assert.notEqual(instance, "i1");
    assert.equal(epoch, 3_000);
    assert.equal(state.now?.epoch, 3_000);
    assert.equal(state.now?.position, 4);
    assert.equal(await guardMachine(state.meta, clone), null);
    assert.notEqual(await guardMachine(state.meta, shop), null);
  });
});

describe("a new epoch", () => {
  it("is above the last one, not behind the clock, and not behind any commit that was seen", () => {
    const last = { epoch: 1_000, newestCommitMs: 900_000 };
    assert.equal(nextEpoch(last, 5_000_999), 5_000);
    assert.equal(nextEpoch(last, 1_000), 1_001);
    assert.equal(nextEpoch({ ...last, newestCommitMs: 7_000_999 }, 1_000), 7_000);
    assert.equal(nextEpoch(null, 5_000_999), 5_000);
  });
});
