/**
 * One HTTP request and its whole answer. It speaks undici's own handler interface: the streams,
 * promises and signals of `request` cost more than everything else that a request of a drain needs.
 */
import type { Dispatcher } from "undici";
import { AgentError } from "../kernel/errors.ts";
import type { Clock } from "../kernel/service.ts";
import { Alarm } from "./alarm.ts";
import type { Answer } from "./classify.ts";

export type ExchangeRequest = Pick<
  Dispatcher.DispatchOptions,
  "origin" | "path" | "method" | "headers" | "body"
>;

/** The rest of a longer answer is read and dropped: a failure that long is no answer of Dapr's. */
const ANSWER_BYTES_MAX = 8 * 1024 * 1024;

/** Exchanges under way, and the end of those that take too long. */
export class Exchanges {
  readonly #clock: Clock;
  readonly #alarm: Alarm;
  readonly #underWay = new Set<Exchange>();

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#alarm = new Alarm(clock, () => this.#endOverdue());
  }

  /**
   * Sends the request and resolves with the answer, its body read to the end; rejects with what
   * undici, the sockets or TLS threw. At the monotonic time `deadlineMs` it rejects whatever the
   * other side does: the connection's own limits are for each silence, and an answer that comes
   * byte by byte has none of those.
   */
  run(dispatcher: Dispatcher, request: ExchangeRequest, deadlineMs: number): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const exchange = new Exchange(deadlineMs, (outcome) => {
      this.#underWay.delete(exchange);
      if (this.#underWay.size === 0) this.#alarm.cancel();
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    });
    this.#underWay.add(exchange);
    this.#alarm.ringAt(deadlineMs);
    dispatcher.dispatch(request, exchange);
    return promise;
  }

  #endOverdue(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const exchange of this.#underWay) if (exchange.deadlineMs <= nowMs) exchange.giveUp();
    for (const { deadlineMs } of this.#underWay) this.#alarm.ringAt(deadlineMs);
  }
}

class Exchange implements Dispatcher.DispatchHandler {
  readonly deadlineMs: number;
  readonly #end: (outcome: Answer | Error) => void;
  #controller: Dispatcher.DispatchController | null = null;
  #overdue: Error | null = null;
  #status = 0;
  #retryAfter: string | null = null;
  #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(deadlineMs: number, end: (outcome: Answer | Error) => void) {
    this.deadlineMs = deadlineMs;
    this.#end = end;
  }

  giveUp(): void {
    this.#overdue = new AgentError(
      "FORWARD_UNAVAILABLE",
      "the Dapr API did not come to an end with its answer",
    );
    // Before it has a connection there is nothing to cut; when it gets one, it is cut then.
    this.#controller?.abort(this.#overdue);
    this.#end(this.#overdue);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#overdue !== null) controller.abort(this.#overdue);
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: { readonly "retry-after"?: string | string[] | undefined },
  ): void {
    this.#status = status;
    const retryAfter = headers["retry-after"];
    this.#retryAfter = typeof retryAfter === "string" ? retryAfter : null;
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#bytes += chunk.length;
    // undici reads the next chunk into the same memory.
    if (this.#bytes <= ANSWER_BYTES_MAX) this.#chunks.push(Buffer.from(chunk));
  }

  onResponseEnd(): void {
    const body = this.#bytes === 0 ? "" : Buffer.concat(this.#chunks).toString("utf8");
    this.#end({ status: this.#status, retryAfter: this.#retryAfter, body });
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#end(error);
  }
}
