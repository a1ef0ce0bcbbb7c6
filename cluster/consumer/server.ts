import { createServer, type RequestListener, type Server } from "node:http";
import { CommunicationProtocolEnum, DaprServer, LogLevel } from "@dapr/dapr";
import type { Applier } from "./applier.ts";
import { deliveredEvent, MalformedEventError, type DeliveredEvent } from "./event.ts";
import { Inbox, type DeliveryStatus } from "./inbox.ts";
import { reportLine, verificationAnswer } from "./reports.ts";

export interface ConsumerOptions {
  readonly appPort: number;
  readonly daprHttpPort: number;
  readonly applier: Applier;
  /** One line for the operator; never holds values of rows. */
  readonly log: (line: string) => void;
}

/** How often rows are looked at again that did not agree with their digests. */
const LOOK_MS = 250;

/** The part of Express that is used here; DaprServer hands its application over without types. */
interface WebApplication extends RequestListener {
  post(path: string, handler: WebHandler): void;
  get(path: string, handler: WebHandler): void;
  listen: (port: number) => Server;
}
type WebHandler = (request: WebRequest, response: WebResponse) => void;
interface WebRequest {
  readonly path: string;
  readonly body: unknown;
  readonly params: Readonly<Record<string, string>>;
}
interface WebResponse {
  json(body: unknown): void;
  sendStatus(status: number): void;
}

/** Starts answering daprd's deliveries; resolves with what stops it. */
export async function startConsumer(options: ConsumerOptions): Promise<() => Promise<void>> {
  const { applier, log } = options;
  const server = new DaprServer({
    serverHost: "127.0.0.1",
    serverPort: String(options.appPort),
    communicationProtocol: CommunicationProtocolEnum.HTTP,
    clientOptions: { daprHost: "127.0.0.1", daprPort: String(options.daprHttpPort) },
    // Dapr lets 4 MiB through; an event of that size must not be refused here.
    maxBodySizeMb: 5,
    logger: { level: LogLevel.Warn },
  });
  const app: WebApplication = server.daprServer.getServer();
  // DaprServer listens on all interfaces; only the sidecar beside us is to be heard.
  app.listen = (port: number) => createServer(app).listen(port, "127.0.0.1");

  let healthy = true;
  const inbox = new Inbox(applier, (error) => {
    healthy = false;
    log(`the database refuses writes: ${codeOf(error)}`);
  });
  // The subscriptions of cluster/subscriptions are declarative, and name these routes. DaprServer's
  // own `pubsub.subscribe` would subscribe a second time, hand over the data alone, and answer
  // SUCCESS when its callback throws.
  app.post("/migration/:route", (request, response) => {
    const apply = request.params["route"] === "dlq" ? recordDeadLetter : receive;
    void take(request.body, apply).then((status) => response.json({ status }));
  });
  app.get("/statistics", (_request, response) => {
    response.json(applier.statistics());
  });
  for (const path of ["/verifications", "/verifications/:instance/:generation"]) {
    app.get(path, (request, response) => {
      const found = verificationAnswer(applier, request.path);
      if (found === null) response.sendStatus(404);
      else response.json(found);
    });
  }
  // Dapr's app health check asks this: while it fails, deliveries stop and nothing is given up.
  app.get("/healthz", (_request, response) => {
    if (!healthy) healthy = canWrite(applier);
    response.sendStatus(healthy ? 200 : 503);
  });
  await server.start();
  const looking = setInterval(() => lookAgain(), LOOK_MS);
  return async () => {
    clearInterval(looking);
    await server.stop();
  };

  function lookAgain(): void {
    try {
      for (const report of applier.lookAgain()) log(reportLine(report));
    } catch (error) {
      healthy = false;
      log(`the database refuses writes: ${codeOf(error)}`);
    }
  }

  function receive(event: DeliveredEvent): void {
    applier.receive(event);
  }
  function recordDeadLetter(event: DeliveredEvent): void {
    applier.recordDeadLetter(event);
  }
  async function take(body: unknown, apply: (event: DeliveredEvent) => void): Promise<DeliveryStatus> {
    try {
      return await inbox.deliver(deliveredEvent(body), apply);
    } catch (error) {
      if (!(error instanceof MalformedEventError)) throw error;
      log(`a delivery is no event and goes to the dead letters: ${error.message}`);
      return "DROP";
    }
  }
}

function canWrite(applier: Applier): boolean {
  try {
    applier.probe();
    return true;
  } catch {
    return false;
  }
}

function codeOf(error: unknown): string {
  if (error instanceof Error)
    return "code" in error ? `${String(error.code)}: ${error.message}` : error.message;
  return "unknown";
}
