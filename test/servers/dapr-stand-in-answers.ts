/** How daprd reads a bulk body and words its failures, for the stand-in. */
import type { ServerResponse } from "node:http";

export type FailureCode =
  | "ERR_PUBSUB_EVENTS_SER"
  | "ERR_PUBSUB_CLOUD_EVENTS_SER"
  | "ERR_PUBSUB_NOT_FOUND"
  | "ERR_PUBSUB_FORBIDDEN"
  | "ERR_PUBSUB_REQUEST_METADATA"
  | "ERR_PUBSUB_PUBLISH_MESSAGE"
  | "ERR_DIRECT_INVOKE";

export interface BulkEntry {
  readonly entryId: string;
  /** The event's text: the string itself, or the JSON of a value. */
  readonly event: string;
}

interface Failure {
  readonly status: number;
  readonly code: FailureCode;
}

export type ParsedBulk =
  | { readonly entries: readonly BulkEntry[]; readonly failure: null }
  | { readonly failure: Failure };

const malformed: ParsedBulk = { failure: { status: 400, code: "ERR_PUBSUB_EVENTS_SER" } };

const reasons: Readonly<Record<FailureCode, string>> = {
  ERR_PUBSUB_EVENTS_SER: "DAPR_PUBSUB_UNMARSHAL_EVENTS",
  ERR_PUBSUB_CLOUD_EVENTS_SER: "DAPR_PUBSUB_CLOUD_EVENT_CREATION",
  ERR_PUBSUB_NOT_FOUND: "DAPR_PUBSUB_NOT_FOUND",
  ERR_PUBSUB_FORBIDDEN: "DAPR_PUBSUB_FORBIDDEN",
  ERR_PUBSUB_REQUEST_METADATA: "DAPR_PUBSUB_METADATA_DESERIALIZATION",
  ERR_PUBSUB_PUBLISH_MESSAGE: "DAPR_PUBSUB_PUBLISH_MESSAGE",
  ERR_DIRECT_INVOKE: "",
};

/** The failure's JSON in daprd's shape; the sentence is the stand-in's own. */
export function failureBody(code: FailureCode): string {
  const message = `the stand-in for Dapr answers ${code}`;
  const reason = reasons[code];
  if (reason === "") return JSON.stringify({ errorCode: code, message });
  const info = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    domain: "dapr.io",
    metadata: {},
    reason,
  };
  return JSON.stringify({ errorCode: code, message, details: [info] });
}

export function answerNoContent(response: ServerResponse): void {
  response.writeHead(204);
  response.end();
}

export function parseBulk(body: Buffer): ParsedBulk {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString("utf8"));
  } catch {
    return malformed;
  }
  if (!Array.isArray(parsed)) return malformed;
  const seen = new Set<string>();
  const entries: BulkEntry[] = [];
  for (const entry of parsed) {
    const read = readEntry(entry);
    if (read === null || seen.has(read.entryId)) return malformed;
    seen.add(read.entryId);
    entries.push(read);
  }
  return { entries, failure: null };
}

function readEntry(entry: unknown): BulkEntry | null {
  if (typeof entry !== "object" || entry === null || !("entryId" in entry)) return null;
  const { entryId } = entry;
  if (typeof entryId !== "string" || entryId === "") return null;
  const contentType = "contentType" in entry ? entry.contentType : "";
  const event: unknown = "event" in entry ? entry.event : null;
  if (typeof contentType !== "string") return null;
  if (contentType.startsWith("text/")) return typeof event === "string" ? { entryId, event } : null;
  if (contentType.includes("json")) return { entryId, event: JSON.stringify(event) };
  return null;
}
