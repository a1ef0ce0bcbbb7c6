/**
 * What an answer of the Dapr API means: Dapr's errorCode decides first, then the status.
 *
 * An event is refused for its own content only where a code says so. Everything else that is not
 * an explicit success holds back and is tried again for ever, because its outcome is unknown and
 * because a wrong token, scope or component would otherwise turn good events into dead letters.
 *
 * Texts are never read. Dapr has one case without a code of its own, a body over its limit
 * ("stream too large" under ERR_PUBSUB_EVENTS_SER in bulk, under ERR_PUBSUB_PUBLISH_MESSAGE in
 * single publish); the forwarder publishes in bulk only and keeps below the limit, so that the
 * former's splitting of the request is the right answer to it too.
 */

/** How far a fault reaches: one topic, or everything that goes to this Dapr API. */
export type HoldScope = "topic" | "all";

/** What one publish request came to. An entry is accepted only where this says so. */
export type PublishOutcome =
  | { readonly kind: "accepted" }
  | {
      /** The entries that are not listed were accepted; the outcome of those listed is unknown, or
       * they were refused for their own content. */
      readonly kind: "partial";
      readonly failedIds: ReadonlySet<string>;
      readonly refused: boolean;
      readonly permanent: boolean;
      readonly code: string;
    }
  | {
      readonly kind: "unavailable";
      readonly code: string;
      readonly message: string;
      readonly scope: HoldScope;
      /** From the Retry-After header; 0 where there was none. */
      readonly retryAfterMs: number;
      /** No answer came in the time for it. */
      readonly silent?: boolean;
    }
  | {
      /** Some entry's content was refused, and nothing of the request was published. */
      readonly kind: "refused";
      readonly code: string;
      /** Trying again cannot help. */
      readonly permanent: boolean;
    };

export const ACCEPTED: PublishOutcome = { kind: "accepted" };

type Meaning = { readonly hold: HoldScope } | { readonly content: "permanent" | "retry" };

/** Dapr's codes. The order of the two tables is the rule: a known code wins over the status. */
const meaningByErrorCode: Readonly<Record<string, Meaning>> = {
  // Not an array, an entryId missing or twice, event against contentType, body over the limit.
  ERR_PUBSUB_EVENTS_SER: { content: "retry" },
  // Not a CloudEvent where one was announced; permanent although its status is 500.
  ERR_PUBSUB_CLOUD_EVENTS_SER: { content: "permanent" },
  ERR_PUBSUB_EVENT_PAYLOAD_TOO_LARGE: { content: "permanent" },
  // The component is missing, also for a moment during a hot reload.
  ERR_PUBSUB_NOT_FOUND: { hold: "all" },
  ERR_PUBSUB_NOT_CONFIGURED: { hold: "all" },
  // allowedTopics, publishingScopes, protectedTopics.
  ERR_PUBSUB_FORBIDDEN: { hold: "topic" },
  // Our own query parameters are wrong: a bug, and no reason to drop an event.
  ERR_PUBSUB_REQUEST_METADATA: { hold: "topic" },
  ERR_TOPIC_NAME_EMPTY: { hold: "topic" },
  ERR_PUBSUB_EMPTY: { hold: "all" },
  // Wrong URL, or the publish API is denied.
  ERR_DIRECT_INVOKE: { hold: "all" },
  // The broker failed, timed out, or its circuit is open.
  ERR_PUBSUB_PUBLISH_MESSAGE: { hold: "topic" },
};

const meaningByStatus: Readonly<Record<number, Meaning>> = {
  401: { hold: "all" },
  403: { hold: "all" },
  404: { hold: "all" },
  407: { hold: "all" },
  408: { hold: "all" },
  413: { content: "permanent" },
  429: { hold: "all" },
  502: { hold: "all" },
  503: { hold: "all" },
  504: { hold: "all" },
};

/** An answer as it came, its body read to the end. */
export interface Answer {
  readonly status: number;
  readonly retryAfter: string | null;
  /** Text of the body; "" for 204. */
  readonly body: string;
}

/**
 * Classifies the answer to a bulk publish of `entries` events. `nowMs` is wall time, for a
 * Retry-After that names a date.
 */
export function classify(answer: Answer, nowMs: number): PublishOutcome {
  // Only 204 is Dapr's word for "the broker has it". A 200 comes from something in between, such
  // as a proxy's login page.
  if (answer.status === 204) return ACCEPTED;
  const failure = parseFailure(answer.body);
  const meaning = meaningOf(answer.status, failure.errorCode);
  const code = failure.errorCode ?? `HTTP_${answer.status}`;
  if (failure.failedIds.size > 0) {
    const refused = "content" in meaning;
    const permanent = refused && meaning.content === "permanent";
    return { kind: "partial", failedIds: failure.failedIds, refused, permanent, code };
  }
  if ("content" in meaning) return { kind: "refused", code, permanent: meaning.content === "permanent" };
  const message = `the Dapr API answered ${answer.status}${detail(failure.message)}`;
  const retryAfterMs = parseRetryAfter(answer.retryAfter, nowMs);
  return { kind: "unavailable", code, message, scope: meaning.hold, retryAfterMs };
}

function meaningOf(status: number, errorCode: string | null): Meaning {
  const byCode = errorCode === null ? undefined : meaningByErrorCode[errorCode];
  if (byCode !== undefined) return byCode;
  const byStatus = meaningByStatus[status];
  if (byStatus !== undefined) return byStatus;
  // A redirection or a strange success means that this is not the Dapr API at all.
  return { hold: status < 400 ? "all" : "topic" };
}

interface Failure {
  readonly errorCode: string | null;
  readonly message: string;
  readonly failedIds: ReadonlySet<string>;
}

const none: ReadonlySet<string> = new Set();

function parseFailure(body: string): Failure {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    // Plain text from a middleware or a proxy: only the status speaks.
    return { errorCode: null, message: "", failedIds: none };
  }
  if (typeof parsed !== "object" || parsed === null) return { errorCode: null, message: "", failedIds: none };
  const errorCode = "errorCode" in parsed && typeof parsed.errorCode === "string" ? parsed.errorCode : null;
  const message = "message" in parsed && typeof parsed.message === "string" ? parsed.message : "";
  const entries: unknown = "failedEntries" in parsed ? parsed.failedEntries : null;
  return {
    // The code becomes a label and stands in logs: anything but a code's own letters is not one.
    errorCode: errorCode !== null && /^[A-Za-z0-9_]{1,64}$/u.test(errorCode) ? errorCode : null,
    message,
    failedIds: Array.isArray(entries) ? idsOf(entries) : none,
  };
}

function idsOf(entries: readonly unknown[]): ReadonlySet<string> {
  const ids = new Set<string>();
  for (const entry of entries) {
    if (typeof entry !== "object" || entry === null || !("entryId" in entry)) continue;
    if (typeof entry.entryId === "string") ids.add(entry.entryId);
  }
  return ids;
}

/** Dapr's sentence names topics and components, never row values; kept short and on one line. */
function detail(message: string): string {
  if (message === "") return "";
  const oneLine = message.replace(/\s+/gu, " ");
  return `: ${oneLine.length > 200 ? `${oneLine.slice(0, 200)}...` : oneLine}`;
}

const RETRY_AFTER_MAX_MS = 300_000;

/** Seconds or an HTTP date; nonsense counts as none, and five minutes are the most. */
export function parseRetryAfter(value: string | null, nowMs: number): number {
  if (value === null || value === "") return 0;
  const seconds = Number(value);
  const delayMs = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - nowMs;
  if (!Number.isFinite(delayMs) || delayMs < 0) return 0;
  return Math.min(delayMs, RETRY_AFTER_MAX_MS);
}

/** Time limits that ran out after the connection stood: they say something of this topic only. */
const topicFaults: ReadonlySet<string> = new Set([
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
  "UND_ERR_HEADERS_OVERFLOW",
]);

/** Translates what undici, the sockets or TLS threw, by its code. */
export function classifyFault(thrown: unknown): PublishOutcome {
  const code = codeOf(thrown) ?? "FORWARD_UNAVAILABLE";
  const silent = topicFaults.has(code);
  const scope = silent ? "topic" : "all";
  const message = `the Dapr API cannot be reached or gave no answer (${code})`;
  return { kind: "unavailable", code, message, scope, retryAfterMs: 0, silent };
}

/** The most telling code: that of the cause where undici wraps one in a general socket error. */
function codeOf(thrown: unknown): string | null {
  if (typeof thrown !== "object" || thrown === null) return null;
  const own = "code" in thrown && typeof thrown.code === "string" ? thrown.code : null;
  if (own !== null && own !== "UND_ERR_SOCKET" && own !== "UND_ERR_INFO") return own;
  const inner = "cause" in thrown ? codeOf(thrown.cause) : null;
  return inner ?? own;
}
