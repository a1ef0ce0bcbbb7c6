/** A stream that carries heartbeats and no events, on each kind of server. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startHeartbeatsOnly } from "../faults/heartbeats-only.ts";
import { serverKinds } from "../servers/matrix.ts";
import { caughtUp, eventually, following, rows, useServer } from "./following.ts";

for (const kind of serverKinds)
  test(`${kind.name}: a stream of heartbeats alone is given up when the server's position moves on`, async () => {
    const server = await useServer(kind);
    const proxy = await startHeartbeatsOnly(server.port);
    const followed = await following({ settings: { port: proxy.port }, silenceLookMs: 700 });
    try {
      await server.query("INSERT INTO thing VALUES (1,'','a')");
      await caughtUp(followed);
      proxy.silence();
      await server.query("INSERT INTO thing VALUES (2,'','b')");
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 1:a", "i 2:b"]);
      assert.equal(followed.source.status().reconnects, 1);
      await eventually("the log tells of begin and end", async () => {
        const said = followed.logged.filter((line) => line.startsWith("the database's stream"));
        return said.length === 2;
      });
    } finally {
      await followed.stop();
      await proxy.stop();
      await server.stop();
    }
  });
