/** What the demo shows: a screen that is drawn again in place on a terminal, plain lines elsewhere. */

export interface Picture {
  readonly phase: string;
  readonly cluster: "up" | "CUT OFF";
  readonly orders: number;
  readonly customers: number;
  readonly others: number;
  readonly captured: number;
  readonly waiting: number;
  readonly spoolBytes: number;
  readonly lagSeconds: number;
}

export interface Output {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const barWidth = 40;

function bar(value: number, most: number): string {
  const filled = most === 0 ? 0 : Math.min(barWidth, Math.ceil((value / most) * barWidth));
  return "#".repeat(filled).padEnd(barWidth, ".");
}

export class View {
  readonly #output: Output;
  readonly #startedMs = performance.now();
  #drawnLines = 0;
  #mostWaiting = 1;
  #lastPlainMs = -Infinity;

  constructor(output: Output) {
    this.#output = output;
  }

  get #live(): boolean {
    return this.#output.isTTY === true;
  }

  #clock(): string {
    return `${((performance.now() - this.#startedMs) / 1000).toFixed(1).padStart(6)} s`;
  }

  /** A line that stays: phases, findings. */
  say(line: string): void {
    this.#erase();
    this.#output.write(`${this.#clock()}  ${line}\n`);
  }

  show(picture: Picture): void {
    this.#mostWaiting = Math.max(this.#mostWaiting, picture.waiting);
    if (this.#live) this.#draw(picture);
    else this.#line(picture);
  }

  #draw(picture: Picture): void {
    const kib = Math.round(picture.spoolBytes / 1024);
    const lines = [
      "",
      `  phase     ${picture.phase}`,
      `  cluster   ${picture.cluster}`,
      `  shop      ${picture.orders} orders, ${picture.customers} customers, ${picture.others} edits, imports, deletions`,
      `  captured  ${picture.captured} events`,
      `  spool     [${bar(picture.waiting, this.#mostWaiting)}] ${picture.waiting} wait, ${kib} KiB on disk`,
      `  lag       ${picture.lagSeconds.toFixed(0)} s`,
    ];
    this.#erase();
    this.#output.write(`${lines.join("\n")}\n`);
    this.#drawnLines = lines.length;
  }

  #line(picture: Picture): void {
    if (performance.now() - this.#lastPlainMs < 1000) return;
    this.#lastPlainMs = performance.now();
    this.#output.write(
      `${this.#clock()}  ${picture.phase}: cluster ${picture.cluster}, ${picture.orders} orders, ` +
        `${picture.captured} events captured, ${picture.waiting} wait in the spool, lag ${picture.lagSeconds.toFixed(0)} s\n`,
    );
  }

  #erase(): void {
    if (this.#drawnLines > 0) this.#output.write(`\u001b[${this.#drawnLines}A\u001b[0J`);
    this.#drawnLines = 0;
  }
}
