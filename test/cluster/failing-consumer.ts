// Stands in for a consumer that refuses everything but dead letters, and counts how often each
// event came. Takes the reference consumer's arguments.
import { createServer } from "node:http";
import { parseArgs } from "node:util";

const { values } = parseArgs({ strict: false, options: { "app-port": { type: "string" } } });
const attempts: Record<string, number> = {};
const deadLetters: string[] = [];

const server = createServer((request, response) => {
  let body = "";
  request.on("data", (chunk: Buffer) => (body += chunk.toString("utf8")));
  request.on("end", () => {
    response.setHeader("content-type", "application/json");
    if (request.method === "POST" && request.url?.startsWith("/migration/") === true) {
      const id = String(JSON.parse(body).id);
      if (request.url === "/migration/dlq") {
        deadLetters.push(id);
        response.end('{"status":"SUCCESS"}');
        return;
      }
      attempts[id] = (attempts[id] ?? 0) + 1;
      response.statusCode = 500;
      response.end("{}");
      return;
    }
    if (request.url === "/statistics") response.end(JSON.stringify({ attempts, deadLetters }));
    else if (request.url === "/dapr/subscribe") response.end("[]");
    else response.end("{}");
  });
});
server.listen(Number(values["app-port"]), "127.0.0.1");
