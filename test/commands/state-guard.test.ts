import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { loadSettings } from "../../agent/config/load.ts";
import { AgentError } from "../../agent/kernel/errors.ts";
import { guardIdentity, planSchemas, readSchemas, type StateValues } from "../../agent/state-guard.ts";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import type { Mapping } from "../../agent/transform/mapping.ts";

class MemoryValues implements StateValues {
  readonly values = new Map<string, unknown>();

  async get(name: string): Promise<unknown> {
    return this.values.get(name);
  }

  async put(name: string, value: unknown): Promise<void> {
    this.values.set(name, JSON.parse(JSON.stringify(value)));
  }
}

function settingsOf(variables: Record<string, string>) {
  const { settings } = loadSettings(variables);
  assert.ok(settings);
  return settings;
}

function without(mapping: Mapping, entity: string, column: string): Mapping {
  return {
    ...mapping,
    entities: mapping.entities.map((one) =>
      one.entity === entity ? { ...one, fields: one.fields.filter((field) => field.column !== column) } : one,
    ),
  };
}

describe("the identity of the state", () => {
  it("is written at the first start and keeps its instance", async () => {
    const values = new MemoryValues();
    const instance = await guardIdentity(values, settingsOf({ SHOP_NAME: "a" }));
    assert.match(instance, /^[0-9a-f-]{36}$/);
    assert.equal(await guardIdentity(values, settingsOf({ SHOP_NAME: "a" })), instance);
  });

  it("refuses another shop and another namespace at once, with both values each", async () => {
    const values = new MemoryValues();
    await guardIdentity(values, settingsOf({ SHOP_NAME: "a" }));
    const other = settingsOf({ SHOP_NAME: "b", IDENTITY_NAMESPACE: "00000000-0000-4000-8000-000000000000" });
    await assert.rejects(guardIdentity(values, other), (error: unknown) => {
      assert.ok(error instanceof AgentError);
      assert.equal(error.code, "IDENTITY_CHANGED");
      assert.match(error.message, /"b".*"a".*00000000-0000-4000-8000-000000000000/);
      return true;
    });
  });
});

describe("the version of a mapping", () => {
  it("is 1 at the first start and announces nothing", () => {
    const plan = planSchemas(null, defaultMapping, null);
    assert.deepEqual(plan.changes, []);
    assert.ok(Object.values(plan.versions).every((version) => version === 1));
  });

  it("rises for the changed entity alone, stays, and never falls back", () => {
    const first = planSchemas(null, defaultMapping, null);
    const changed = without(defaultMapping, "customer", "dob");
    const second = planSchemas(first.record, changed, null);
    assert.deepEqual(second.changes, [{ entity: "customer", schemaVersion: 2, previousVersion: 1 }]);
    assert.equal(second.versions["order"], 1);
    assert.deepEqual(planSchemas(second.record, changed, null).changes, []);
    const back = planSchemas(second.record, defaultMapping, null);
    assert.deepEqual(back.changes, [{ entity: "customer", schemaVersion: 3, previousVersion: 2 }]);
  });

  it("keeps the version of an entity that is left out for a while", () => {
    const first = planSchemas(null, defaultMapping, null);
    const entities = defaultMapping.entities.filter((one) => one.entity !== "coupon");
    const second = planSchemas(first.record, { ...defaultMapping, entities }, null);
    assert.equal(second.versions["coupon"], undefined);
    const third = planSchemas(second.record, without(defaultMapping, "coupon", "code"), null);
    assert.deepEqual(third.changes, [{ entity: "coupon", schemaVersion: 2, previousVersion: 1 }]);
  });

  it("is read back from the state as it was stored", async () => {
    const values = new MemoryValues();
    assert.equal(await readSchemas(values), null);
    const { record } = planSchemas(null, defaultMapping, null);
    await values.put("schemas", record);
    assert.deepEqual(await readSchemas(values), record);
    await values.put("schemas", { customer: 1 });
    await assert.rejects(readSchemas(values), /not readable/);
  });
});
