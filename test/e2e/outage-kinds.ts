/** Every kind of outage between the agent and the broker: how it begins, how it ends, what is said of it. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Fault } from "../faults/tcp-proxy.ts";
import type { ProxyScript } from "../faults/dapr-proxy.ts";
import { eventually, type OutageRoad } from "./outage-road.ts";

export interface OutageKind {
  readonly name: string;
  /** Two kinds of one place exclude each other. */
  readonly place: "network" | "api" | "daprd" | "broker";
  /** The code by which status, metrics, health and log name it; null where some events still pass. */
  readonly code: RegExp | null;
  begin(road: OutageRoad): Promise<void>;
  /** Resolves in the moment in which the fault is over. */
  end(road: OutageRoad): Promise<void>;
}

const anyTopic = "migration.product.changed";

function network(name: string, fault: Fault, code: RegExp): OutageKind {
  return {
    name,
    place: "network",
    code,
    begin: (road) => road.network.become(fault),
    end: (road) => road.network.become({ kind: "pass" }),
  };
}

function scripted(name: string, script: ProxyScript, code: RegExp | null): OutageKind {
  return {
    name,
    place: "api",
    code,
    begin: async (road) => road.api.setScript(script),
    end: async (road) => road.api.setScript(null),
  };
}

/** daprd's component file becomes another one, or goes, and daprd takes the change while it runs. */
function component(name: string, change: (text: string) => string | null, code: RegExp): OutageKind {
  let original = "";
  return {
    name,
    place: "daprd",
    code,
    begin: async (road) => {
      const { componentFile } = road.stack.broker;
      original = readFileSync(componentFile, "utf8");
      const changed = change(original);
      if (changed === null) rmSync(componentFile);
      else writeFileSync(componentFile, changed);
      await eventually(name, async () => !(await road.daprTakes(anyTopic)), 20_000);
    },
    end: async (road) => {
      writeFileSync(road.stack.broker.componentFile, original);
      await eventually(`the end of: ${name}`, () => road.daprTakes(anyTopic), 20_000);
    },
  };
}

/** The component file is written anew over and over, and daprd closes and opens the component each time. */
function hotReload(): OutageKind {
  const ending = { now: false };
  let writing = Promise.resolve();
  return {
    name: "hot reload of the component, over and over",
    place: "daprd",
    code: null,
    begin: async (road) => {
      const { componentFile } = road.stack.broker;
      const original = readFileSync(componentFile, "utf8");
      ending.now = false;
      writing = (async () => {
        for (let seconds = 20; !ending.now; seconds += 1) {
          writeFileSync(componentFile, original.replace("initTimeout: 30s", `initTimeout: ${seconds}s`));
          await sleep(400);
        }
        writeFileSync(componentFile, original);
      })();
    },
    end: async (road) => {
      ending.now = true;
      await writing;
      await eventually("the end of the reloads", () => road.daprTakes(anyTopic), 20_000);
    },
  };
}

/** The events of about half the entities; always the same ones, so that trying again does not help. */
function isUnlucky(entryId: string): boolean {
  return entryId.charCodeAt(entryId.length - 1) % 2 === 1;
}

const silent = /UND_ERR_HEADERS_TIMEOUT|NO_ANSWER/;
const reset = /ECONNRESET|UND_ERR_SOCKET|EPIPE/;

export const outageKinds: readonly OutageKind[] = [
  network("refused", { kind: "refuse" }, /ECONNREFUSED/),
  network("hanging", { kind: "hang" }, silent),
  network("black hole", { kind: "black-hole" }, silent),
  {
    name: "black hole, and the network forgot the old connections",
    place: "network",
    code: silent,
    begin: (road) => road.network.become({ kind: "black-hole" }),
    end: (road) => road.network.become({ kind: "half-open" }),
  },
  network("vanished, connecting gets no answer", { kind: "vanish" }, /NO_ANSWER|UND_ERR_CONNECT_TIMEOUT/),
  network("reset after acceptance", { kind: "reset-answers" }, reset),
  network("cut in the middle of the answer", { kind: "reset-answers", afterBytes: 20 }, reset),
  scripted("503", () => ({ kind: "answer", status: 503, body: "no upstream" }), /^HTTP_503$/),
  scripted(
    "500, although the events were stored",
    () => ({ kind: "answer", status: 500, stores: true, body: '{"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE"}' }),
    /^ERR_PUBSUB_PUBLISH_MESSAGE$/,
  ),
  scripted(
    "a login page instead of an answer",
    () => ({
      kind: "answer",
      status: 200,
      headers: { "content-type": "text/html" },
      body: "<html>Please log in</html>",
    }),
    /^HTTP_200$/,
  ),
  scripted(
    "half of each bulk failing",
    ({ entries }) => ({
      kind: "partial",
      failedIds: entries.map(({ entryId }) => entryId).filter(isUnlucky),
    }),
    /^ERR_PUBSUB_PUBLISH_MESSAGE$/,
  ),
  scripted("answers after 1 s", () => ({ kind: "pass", delayMs: 1_000 }), null),
  {
    name: "401, wrong token",
    place: "daprd",
    code: /^HTTP_401$/,
    begin: (road) => road.rotateToken(),
    end: async (road) => road.handToken(),
  },
  component(
    "403, scope denied",
    (text) =>
      text
        .replace("edge-gateway=migration.customer", "edge-gateway=other.customer")
        .replaceAll(",migration.", ",other."),
    /^ERR_PUBSUB_FORBIDDEN$/,
  ),
  component("404, component missing", () => null, /^ERR_PUBSUB_NOT_FOUND$/),
  hotReload(),
  {
    name: "daprd stopped",
    place: "daprd",
    code: /ECONNRESET|UND_ERR_SOCKET/,
    begin: (road) => road.stack.broker.gateway.kill(),
    end: (road) => road.stack.broker.gateway.restart(),
  },
  {
    name: "Redis stopped",
    place: "broker",
    code: /^ERR_PUBSUB_PUBLISH_MESSAGE$/,
    begin: (road) => road.stack.broker.redis.kill(),
    end: (road) => road.stack.broker.redis.restart(),
  },
  {
    name: "Redis out of memory",
    place: "broker",
    code: /^ERR_PUBSUB_PUBLISH_MESSAGE$/,
    begin: async (road) => void (await road.stack.broker.redis.command("CONFIG", "SET", "maxmemory", "1mb")),
    end: async (road) => void (await road.stack.broker.redis.command("CONFIG", "SET", "maxmemory", "0")),
  },
  {
    name: "black hole between daprd and Redis",
    place: "broker",
    code: /^ERR_PUBSUB_PUBLISH_MESSAGE$/,
    begin: (road) => road.brokerNetwork.become({ kind: "black-hole" }),
    end: (road) => road.brokerNetwork.become({ kind: "pass" }),
  },
];
