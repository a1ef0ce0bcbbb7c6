import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AgentError } from "../../agent/kernel/errors.ts";
import { json, StatusServer, text } from "../../agent/observe/status-server.ts";
import { LinesLog } from "./facts.ts";

function serverOf(port = 0, log = new LinesLog()): StatusServer {
  return new StatusServer({
    name: "test",
    host: "127.0.0.1",
    port,
    log,
    routes: {
      "/health": () => json(503, { status: "unhealthy" }),
      "/metrics": async () => text(200, "a 1\n"),
      "/broken": () => {
        throw new Error("geheim");
      },
    },
  });
}

describe("the status server", () => {
  it("answers GET and HEAD, 405 to other methods and 404 to other paths", async () => {
    const server = serverOf();
    const base = `http://127.0.0.1:${await server.open()}`;
    try {
      const health = await fetch(`${base}/health?x=1`);
      assert.equal(health.status, 503);
      assert.match(health.headers.get("content-type") ?? "", /^application\/json/);
      assert.deepEqual(await health.json(), { status: "unhealthy" });
      const head = await fetch(`${base}/metrics`, { method: "HEAD" });
      assert.equal(head.status, 200);
      assert.equal(head.headers.get("content-length"), "4");
      assert.equal(await head.text(), "");
      const post = await fetch(`${base}/metrics`, { method: "POST", body: "x" });
      assert.equal(post.status, 405);
      assert.equal(post.headers.get("allow"), "GET, HEAD");
      for (const path of ["/", "/nothing", "/__proto__", "/constructor"]) {
        assert.equal((await fetch(`${base}${path}`)).status, 404, path);
      }
    } finally {
      await server.close();
    }
    await assert.rejects(fetch(`${base}/health`));
  });

  it("shows no detail of an error", async () => {
    const log = new LinesLog();
    const server = serverOf(0, log);
    const base = `http://127.0.0.1:${await server.open()}`;
    try {
      const broken = await fetch(`${base}/broken`);
      assert.equal(broken.status, 500);
      assert.equal(await broken.text(), "internal error\n");
      assert.equal(log.lines.length, 1);
    } finally {
      await server.close();
    }
  });

  it("names port and reason when it cannot listen", async () => {
    const first = serverOf();
    const port = await first.open();
    try {
      const second = serverOf(port);
      await assert.rejects(second.open(), (error: unknown) => {
        assert.ok(error instanceof AgentError);
        assert.equal(error.code, "LISTEN_FAILED");
        assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${port}.*EADDRINUSE`));
        return true;
      });
      await second.close();
    } finally {
      await first.close();
    }
  });
});
