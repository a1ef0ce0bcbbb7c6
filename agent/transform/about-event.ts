/** What an encoded event is about, read back from its bytes. */
import type { OutboundEvent } from "../change.ts";
import type { EventFacts } from "../ports.ts";

/** The facts, with the trace that the event belongs to. */
export interface AboutEvent extends EventFacts {
  readonly traceId: string | null;
}

/** The text in a payload's string literal. A spooled payload was verified, so it parses. */
export function literalText(payload: Buffer): string {
  const text: unknown = JSON.parse(payload.toString("utf8"));
  return typeof text === "string" ? text : "";
}

/** `text` is the event's, from `literalText`. */
export function aboutEvent(event: OutboundEvent, text: string): AboutEvent {
  const cloudEvent = objectOf(JSON.parse(text));
  const data = objectOf(cloudEvent["data"]);
  const magentoId = data["magento_id"];
  // The stub of an oversize event tells the size that the event would have had.
  const stubBytes = event.oversize ? data["bytes"] : undefined;
  return {
    entity: textOrNull(data["entity"]),
    id: textOrNull(data["id"]),
    magentoId: typeof magentoId === "string" || typeof magentoId === "number" ? magentoId : null,
    sequence: textOrNull(data["sequence"]),
    bytes: typeof stubBytes === "number" ? stubBytes : Buffer.byteLength(text, "utf8"),
    traceId: textOrNull(cloudEvent["traceparent"])?.split("-")[1] ?? null,
  };
}

function textOrNull(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? Object.fromEntries(Object.entries(value)) : {};
}
