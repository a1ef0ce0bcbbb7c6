// A Dapr API behind a network that swallows everything: accepts, reads, and never answers.
import { createServer } from "node:net";

createServer((socket) => socket.on("error", () => undefined).resume()).listen(3500, "127.0.0.1");
