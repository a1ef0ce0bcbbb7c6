/**
 * The subscriber's side of the stand-in: delivers what was accepted to an app over HTTP, as daprd
 * does for raw events that are CloudEvents: POST, application/cloudevents+json, the bytes as sent.
 * One event at a time per topic, tried again until the app takes it, as with the retry policy and
 * the dead-letter topic that the cluster's files set.
 */
import { setTimeout as sleep } from "node:timers/promises";

/** A subscription, as declared in a file or named by the app at /dapr/subscribe. */
export interface Subscription {
  readonly topic: string;
  /** Path in the app. */
  readonly route: string;
}

const RETRY_MS = 250;

export class Deliveries {
  readonly #origin: string;
  readonly #declared: readonly Subscription[];
  readonly #stopping = new AbortController();
  readonly #waiting = new Map<string, string[]>();
  readonly #running = new Set<Promise<void>>();
  #routes: ReadonlyMap<string, readonly string[]> | null = null;

  constructor(appPort: number, declared: readonly Subscription[]) {
    this.#origin = `http://127.0.0.1:${appPort}`;
    this.#declared = declared;
  }

  start(): void {
    this.#run(this.#subscribe());
  }

  add(topic: string, event: string): void {
    const queue = this.#waiting.get(topic);
    if (queue !== undefined) {
      queue.push(event);
      return;
    }
    this.#waiting.set(topic, [event]);
    if (this.#routes !== null) this.#run(this.#deliver(topic));
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#running);
  }

  #run(work: Promise<void>): void {
    // What fails once the stand-in stops is no news; everything else is tried again inside.
    const settled = work.catch(() => undefined).finally(() => this.#running.delete(settled));
    this.#running.add(settled);
  }

  /** Asks the app for its subscriptions, until it is up. */
  async #subscribe(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        const answer = await fetch(`${this.#origin}/dapr/subscribe`, { signal });
        const named = answer.ok ? subscriptionsOf(await answer.json()) : [];
        if (!answer.ok) await answer.body?.cancel();
        const routes = new Map<string, string[]>();
        for (const { topic, route } of [...this.#declared, ...named]) {
          routes.set(topic, [...(routes.get(topic) ?? []), route]);
        }
        this.#routes = routes;
        for (const topic of this.#waiting.keys()) this.#run(this.#deliver(topic));
        return;
      } catch {
        await sleep(RETRY_MS, undefined, { signal });
      }
    }
  }

  async #deliver(topic: string): Promise<void> {
    const queue = this.#waiting.get(topic) ?? [];
    const routes = this.#routes?.get(topic) ?? [];
    for (let at = 0; at < queue.length; at++) {
      for (const route of routes) await this.#post(route, queue[at] ?? "");
    }
    this.#waiting.delete(topic);
  }

  async #post(route: string, body: string): Promise<void> {
    const { signal } = this.#stopping;
    const headers = { "content-type": "application/cloudevents+json" };
    const path = route.startsWith("/") ? route : `/${route}`;
    while (!signal.aborted) {
      try {
        const answer = await fetch(this.#origin + path, { method: "POST", headers, body, signal });
        const text = await answer.text();
        // 404 and DROP say that the app will never take it.
        if (answer.status === 404 || (answer.ok && !text.includes('"RETRY"'))) return;
      } catch {
        // The app is down: daprd waits for it too.
      }
      await sleep(RETRY_MS, undefined, { signal });
    }
  }
}

function subscriptionsOf(answer: unknown): Subscription[] {
  const subscriptions: Subscription[] = [];
  if (!Array.isArray(answer)) return subscriptions;
  for (const item of answer) {
    if (typeof item !== "object" || item === null || !("topic" in item)) continue;
    const route = routeOf(item);
    if (typeof item.topic === "string" && route !== null) subscriptions.push({ topic: item.topic, route });
  }
  return subscriptions;
}

function routeOf(item: object): string | null {
  if ("route" in item && typeof item.route === "string" && item.route !== "") return item.route;
  const routes: unknown = "routes" in item ? item.routes : null;
  if (typeof routes !== "object" || routes === null || !("default" in routes)) return null;
  return typeof routes.default === "string" ? routes.default : null;
}
