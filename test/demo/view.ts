/** What the demo shows: a screen that is drawn again in place on a terminal, plain lines elsewhere. */

export interface Picture {
  readonly phase: string;
  readonly cluster: "up" | "CUT OFF";
  readonly orders: number;
  readonly customers: number;
  readonly others: number;
  readonly captured: number;
  readonly accepted: number;
  readonly waiting: number;
  readonly spoolBytes: number;
  readonly lagSeconds: number;
}

export interface Output {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

const barWidth = 30;

function bar(value: number, full: number): string {
  const filled = Math.min(barWidth, Math.ceil((value / full) * barWidth));
  return "#".repeat(filled).padEnd(barWidth, ".");
}

/** What a full bar stands for: a round number that leaves room to grow into. */
function fullBar(most: number): number {
  let full = 500;
  while (full < most) full *= 2;
  return full;
}

const counted = (count: number): string => count.toLocaleString("en");

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
    const { cluster, waiting } = picture;
    const disk = `${(picture.spoolBytes / 1024 ** 2).toFixed(1)} MiB on disk`;
    const shop = `${counted(picture.orders)} orders, ${counted(picture.customers)} customers`;
    const lines = [
      "",
      `  phase     ${picture.phase}`,
      `  cluster   ${cluster}`,
      `  shop      ${shop}, ${counted(picture.others)} other actions`,
      `  events    ${counted(picture.captured)} captured, ${counted(picture.accepted)} accepted by the cluster`,
      `  spool     [${bar(waiting, fullBar(this.#mostWaiting))}] ${counted(waiting)} wait, ${disk}`,
      `  lag       ${picture.lagSeconds.toFixed(0)} s`,
    ];
    this.#erase();
    // A line that the terminal breaks would take two, and could not be erased by their count.
    const columns = Math.max(20, (this.#output.columns ?? 80) - 1);
    this.#output.write(`${lines.map((line) => line.slice(0, columns)).join("\n")}\n`);
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
