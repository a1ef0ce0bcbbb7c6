/** What an operator can do about a topic that is held though its events are the poison. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { OutboundEvent } from "../../agent/change.ts";
import { AgentError } from "../../agent/kernel/errors.ts";
import type { DaprStandIn, Script } from "../servers/dapr-stand-in.ts";
import { DLQ, eventOf, TOPIC, until } from "./fakes.ts";
import { startBench } from "./bench.ts";

/** `count` events of different entities, and the ids of every `nth` of them. */
function mixed(
  count: number,
  nth: number,
): { readonly events: OutboundEvent[]; readonly poison: Set<string> } {
  const events = Array.from({ length: count }, (_, index) => eventOf({ key: `k${index}` }));
  return { events, poison: new Set(events.filter((_, index) => index % nth === 0).map(({ id }) => id)) };
}

function refusing(ids: ReadonlySet<string>): Script {
  return ({ topic, entries }) =>
    topic !== DLQ && entries.some(({ entryId }) => ids.has(entryId))
      ? { kind: "answer", status: 413, body: "too large" }
      : null;
}

function delivered(standIn: DaprStandIn, topic: string): string[] {
  return standIn.delivered.filter((one) => one.topic === topic).map(({ entryId }) => entryId);
}

function refusal(run: () => unknown): AgentError {
  try {
    run();
  } catch (error) {
    if (error instanceof AgentError) return error;
    throw error;
  }
  return assert.fail("it was done");
}

test("of a stream with 5 % real poison the rest is delivered once an operator has released the poison", async (t) => {
  const { standIn, rig } = await startBench(t, { quarantineMax: 200 });
  const { events, poison } = mixed(2000, 20);
  standIn.setScript(refusing(poison));
  rig.queues.append(...events);
  await until(() => rig.forwarder.status().topics[0]?.code === "STORM", "the topic is held");
  assert.match(rig.forwarder.status().topics[0]?.message ?? "", new RegExp(`topic release ${TOPIC} --max=N`));
  const released = rig.forwarder.release({ topic: TOPIC, what: { max: 150 } });
  assert.equal(released.events, 150);
  assert.ok(released.room > 150 && released.room <= 200);
  await rig.drained(40_000);
  const given = rig.queues.quarantined.events.map(({ event }) => event.id);
  assert.deepEqual(new Set(given), poison, "all of the poison, and nothing else, is given up");
  assert.deepEqual(new Set(delivered(standIn, DLQ)), new Set(given.map((id) => `dead-${id}`)));
  const sound = events.map(({ id }) => id).filter((id) => !poison.has(id));
  assert.deepEqual(new Set(delivered(standIn, TOPIC)), new Set(sound), "nothing is lost");
});

test("after what was released the rule holds again, and what is left can be taken back", async (t) => {
  const { standIn, rig } = await startBench(t, { quarantineMax: 200 });
  const { events, poison } = mixed(400, 2);
  standIn.setScript(refusing(poison));
  rig.queues.append(...events);
  const isHeld = (): boolean => rig.forwarder.status().topics[0]?.code === "STORM";
  await until(isHeld, "the topic is held");
  rig.forwarder.release({ topic: TOPIC, what: { max: 30 } });
  await until(() => rig.queues.quarantined.count >= 30, "thirty are given up");
  await until(isHeld, "the topic is held again");
  // Up to nine before the first storm, and up to nine before the second.
  const given = rig.queues.quarantined.count + rig.forwarder.status().deadLettersWaiting;
  assert.ok(given <= 48, `${given} given up`);
  assert.equal(rig.forwarder.release({ topic: TOPIC, what: { max: 0 } }).events, 0);
  poison.clear();
  await rig.drained();
});

test("an event that the broker alone does not take is named, and given up by its id without its payload", async (t) => {
  const { standIn, rig } = await startBench(t);
  const { events } = mixed(50, 1);
  const bad = events[7]?.id ?? assert.fail();
  standIn.setScript(({ entries }) => {
    const failedIds = entries.map(({ entryId }) => entryId).filter((id) => id === bad);
    const isWholeLetter = entries.some(
      ({ entryId, event }) => entryId === `dead-${bad}` && event.includes("payload"),
    );
    if (isWholeLetter)
      return { kind: "answer", status: 500, body: '{"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE"}' };
    return failedIds.length === 0
      ? null
      : { kind: "partial", failedIds, errorCode: "ERR_PUBSUB_PUBLISH_MESSAGE" };
  });
  rig.queues.append(...events);
  await until(() => delivered(standIn, TOPIC).length === 49, "the others are delivered");
  const topic = () => rig.forwarder.status().topics[0];
  await until(() => topic()?.message?.includes(bad) === true, "the event is named");
  assert.equal(topic()?.held, true);
  assert.match(topic()?.message ?? "", new RegExp(`topic release ${TOPIC} --event=${bad}`));
  const [other = assert.fail()] = events;
  assert.equal(
    refusal(() => rig.forwarder.release({ topic: TOPIC, what: { eventId: other.id } })).code,
    "COMMAND_REFUSED",
  );
  rig.forwarder.release({ topic: TOPIC, what: { eventId: bad } });
  await rig.drained();
  const [kept] = rig.queues.quarantined.events;
  assert.deepEqual([kept?.event.id, kept?.verdict.deadLetterAccepted], [bad, true]);
  assert.equal(kept?.verdict.code, "ERR_PUBSUB_PUBLISH_MESSAGE");
  await until(() => topic()?.held === false, "the topic is not held any more");
});

test("nothing is released of a topic or an event that nobody knows", async (t) => {
  const { rig } = await startBench(t);
  assert.match(
    refusal(() => rig.forwarder.release({ topic: "nothing", what: { max: 1 } })).message,
    /nothing waits/,
  );
  rig.queues.append(eventOf({ key: "a" }));
  await rig.drained();
  const gone = refusal(() => rig.forwarder.release({ topic: TOPIC, what: { eventId: "gone" } }));
  assert.match(gone.message, /no event gone is tried/);
});
