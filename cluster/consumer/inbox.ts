import type { Applier } from "./applier.ts";
import { MalformedEventError, type DeliveredEvent } from "./event.ts";

/** What daprd is told. SUCCESS: done. RETRY: later again. DROP: never again, to the dead letters. */
export type DeliveryStatus = "SUCCESS" | "RETRY" | "DROP";

interface Waiting {
  readonly event: DeliveredEvent;
  readonly apply: (event: DeliveredEvent) => void;
  readonly resolve: (status: DeliveryStatus) => void;
}

/**
 * Gathers the deliveries that arrive together into one SQLite transaction, and answers each only
 * after the commit: a delivery that was answered SUCCESS is in the database.
 */
export class Inbox {
  readonly #applier: Applier;
  readonly #onFailure: (error: unknown) => void;
  #waiting: Waiting[] = [];
  #scheduled = false;

  constructor(applier: Applier, onFailure: (error: unknown) => void) {
    this.#applier = applier;
    this.#onFailure = onFailure;
  }

  /** Never rejects: what fails is answered RETRY or DROP. */
  deliver(event: DeliveredEvent, apply: (event: DeliveredEvent) => void): Promise<DeliveryStatus> {
    return new Promise((resolve) => {
      this.#waiting.push({ event, apply, resolve });
      if (this.#scheduled) return;
      this.#scheduled = true;
      // After the requests that the sockets hold already: they share the transaction.
      setImmediate(() => this.#flush());
    });
  }

  #flush(): void {
    const batch = this.#waiting;
    this.#waiting = [];
    this.#scheduled = false;
    let statuses: DeliveryStatus[];
    try {
      statuses = this.#applier.inTransaction(() => batch.map((one) => applyOne(one)));
    } catch (error) {
      this.#onFailure(error);
      statuses = batch.map(() => "RETRY");
    }
    for (const [at, one] of batch.entries()) one.resolve(statuses[at] ?? "RETRY");
  }
}

/** A malformed event writes nothing, so the rest of its batch goes on. */
function applyOne(one: Waiting): DeliveryStatus {
  try {
    one.apply(one.event);
    return "SUCCESS";
  } catch (error) {
    if (error instanceof MalformedEventError) return "DROP";
    throw error;
  }
}
