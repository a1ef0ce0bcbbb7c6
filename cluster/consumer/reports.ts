/**
 * The reports of verifications over HTTP, and nothing else: what the agent asks for when
 * VERIFY_REPORTS_URL names it. They hold keys and kinds of drift, and no other value of a row.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { Applier } from "./applier.ts";
import { driftsOf, type VerificationReport } from "./verification-tables.ts";

export interface ReportsOptions {
  readonly host: string;
  readonly port: number;
  /** Asked for in the header dapr-api-token; null: whoever reaches the port may read. */
  readonly token: string | null;
  readonly applier: Pick<Applier, "verification" | "verifications">;
}

/** What a path under /verifications says; null: there is no such thing. */
export function verificationAnswer(
  applier: Pick<Applier, "verification" | "verifications">,
  path: string,
): VerificationReport | readonly VerificationReport[] | null {
  if (path === "/verifications") return applier.verifications();
  const [, instance, generation] = /^\/verifications\/([0-9A-Za-z-]{1,64})\/([0-9]{1,10})$/.exec(path) ?? [];
  return instance === undefined ? null : applier.verification(instance, Number(generation));
}

/** One line for the operator. */
export function reportLine(report: VerificationReport): string {
  const { verification, entity, compared, newer, undeliverable, missing, changed, extra, ahead } = report;
  const drifts = driftsOf(report);
  const kinds = `${missing} missing, ${changed} changed, ${extra} extra, ${ahead} ahead`;
  const verdict = drifts === 0 ? "no drift" : `${drifts} drifted (${kinds})`;
  const large = undeliverable === 0 ? "" : `, ${undeliverable} too large to be delivered`;
  return `verification ${verification} of ${entity}: ${compared} rows compared, ${newer} newer here${large}: ${verdict}`;
}

/** Resolves with the server once it listens. */
export async function startReports(options: ReportsOptions): Promise<Server> {
  const { applier, token } = options;
  const server = createServer((request, response) => {
    const answer = (status: number, body: unknown): void => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    };
    if (token !== null && !isSame(request.headers["dapr-api-token"], token)) {
      return answer(401, { error: "the token is missing or wrong" });
    }
    const path = request.method === "GET" ? (request.url ?? "").split("?")[0] : "";
    const found = verificationAnswer(applier, path ?? "");
    if (found === null) answer(404, { error: "there is no such verification" });
    else answer(200, found);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: options.host, port: options.port }, () => resolve());
  });
  return server;
}

/** In the same time whatever differs. */
function isSame(given: string | string[] | undefined, token: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return typeof given === "string" && timingSafeEqual(digest(given), digest(token));
}
