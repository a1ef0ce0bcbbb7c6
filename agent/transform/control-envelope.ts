/** What every control event and dead letter has around its data. Pure. */
import type { Lane, OutboundEvent } from "../change.ts";
import { eventFormMajor, sourceOf } from "./entity-plan.ts";
import type { Installation } from "./entity-plan.ts";
import { traceparentOf } from "./sequence.ts";

export interface Envelope {
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly timeMs: number;
  readonly topic: string;
  readonly traceId: string;
  /** Null where nothing has a place yet: told as null in data, and left out of the attributes. */
  readonly sequence: string | null;
  readonly data: Readonly<Record<string, unknown>>;
}

export class ControlEnvelopes {
  readonly #installation: Installation;
  readonly #controlTopic: string;

  constructor(installation: Installation, controlTopic: string) {
    this.#installation = installation;
    this.#controlTopic = controlTopic;
  }

  payload(envelope: Envelope): Buffer {
    const { shop, pubsub } = this.#installation;
    const traceparent = traceparentOf(envelope.traceId, envelope.id);
    const kind = envelope.type.replace("magento.", "");
    const event = {
      specversion: "1.0",
      id: envelope.id,
      source: sourceOf(this.#installation),
      type: envelope.type,
      subject: envelope.subject,
      time: new Date(envelope.timeMs).toISOString(),
      datacontenttype: "application/json",
      ...(envelope.sequence === null ? {} : { sequence: envelope.sequence }),
      partitionkey: shop,
      dataschema: `urn:magento-edge-agent:${kind}:${eventFormMajor}`,
      topic: envelope.topic,
      pubsubname: pubsub,
      traceparent,
      traceid: traceparent,
      data: {
        type: envelope.type,
        shop,
        source: "magento",
        event_id: envelope.id,
        sequence: envelope.sequence,
        ...envelope.data,
      },
    };
    return Buffer.from(JSON.stringify(JSON.stringify(event)), "utf8");
  }

  outbound(made: {
    readonly id: string;
    readonly payload: Buffer;
    readonly timeMs: number;
    readonly queue: string;
    readonly barrier: boolean;
    /** Else the live one. */
    readonly lane?: Lane;
    /** Else that of control events. */
    readonly topic?: string;
  }): OutboundEvent {
    return {
      kind: "control",
      queue: made.queue,
      lane: made.lane ?? "live",
      topic: made.topic ?? this.#controlTopic,
      table: "",
      op: "",
      id: made.id,
      entityKey: "",
      commitTimeMs: made.timeMs,
      capturedAtMs: made.timeMs,
      barrier: made.barrier,
      oversize: false,
      payload: made.payload,
    };
  }
}
