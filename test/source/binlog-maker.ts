/** Binlog events as a server writes them, made by hand for tests without one. */
import { crc32 } from "node:zlib";
import type { Position } from "../../agent/change.ts";

export interface MadeEvent {
  readonly file: string;
  readonly start: number;
  readonly end: number;
  readonly bytes: Buffer;
}

export interface MakerOptions {
  readonly file?: string;
  /** Where the first event stands. */
  readonly position?: number;
  readonly checksums?: boolean;
  /** Newer servers name no end inside a transaction. */
  readonly zeroEnds?: boolean;
}

export const tableIds = { followedA: 101, followedB: 102, noise: 103 } as const;
export const tableNames: Readonly<Record<number, string>> = { 101: "a", 102: "b", 103: "noise" };

export class BinlogMaker {
  readonly events: MadeEvent[] = [];
  file: string;
  position: number;
  readonly checksums: boolean;
  readonly #zeroEnds: boolean;
  #sequence = 0;
  seconds = 1_700_000_000;

  constructor(options: MakerOptions = {}) {
    this.file = options.file ?? "binlog.000001";
    this.position = options.position ?? 4;
    this.checksums = options.checksums ?? true;
    this.#zeroEnds = options.zeroEnds ?? false;
    if (this.position === 4) this.format();
  }

  get place(): Position {
    return { file: this.file, position: this.position };
  }

  format(): void {
    this.#add(15, formatBody(this.checksums));
  }

  /** MariaDB's Gtid event. */
  gtid(flags = 0): string {
    this.#sequence += 1;
    const body = Buffer.alloc(19);
    body.writeBigUInt64LE(BigInt(this.#sequence), 0);
    body[12] = flags;
    this.#add(162, body);
    return `0-1-${this.#sequence}`;
  }

  tableMap(id: number, schema = "shop"): void {
    const name = tableNames[id] ?? "";
    const head = Buffer.alloc(8);
    head.writeUIntLE(id, 0, 6);
    const columns = ["id", "v"].map((column) =>
      Buffer.from(`${String.fromCharCode(column.length)}${column}`),
    );
    const names = Buffer.concat(columns);
    const body = Buffer.concat([
      head,
      Buffer.from([schema.length]),
      Buffer.from(`${schema}\0`),
      Buffer.from([name.length]),
      Buffer.from(`${name}\0`),
      // Two INT columns without metadata, nullable; then signedness and names.
      Buffer.from([2, 3, 3, 0, 3, 1, 1, 0, 4, names.length]),
      names,
    ]);
    this.#add(19, body, this.#zeroEnds);
  }

  /** Inserts rows (id, v), with v the same in each. */
  insert(id: number, rows: readonly number[]): void {
    const head = Buffer.alloc(10);
    head.writeUIntLE(id, 0, 6);
    head[8] = 2;
    head[9] = 3;
    const images = rows.map((value) => {
      const image = Buffer.alloc(9);
      image.writeInt32LE(value, 1);
      image.writeInt32LE(7, 5);
      return image;
    });
    this.#add(23, Buffer.concat([head, ...images]), this.#zeroEnds);
  }

  query(text: string, options: { readonly schema?: string; readonly inside?: boolean } = {}): void {
    const schema = options.schema ?? "shop";
    const head = Buffer.alloc(13);
    head[8] = schema.length;
    this.#add(
      2,
      Buffer.concat([head, Buffer.from(`${schema}\0${text}`)]),
      (options.inside ?? false) && this.#zeroEnds,
    );
  }

  xid(): void {
    const body = Buffer.alloc(8);
    body.writeUInt32LE(this.#sequence, 0);
    this.#add(16, body);
  }

  rotate(file: string): void {
    this.#add(4, Buffer.concat([positionBytes(4), Buffer.from(file)]));
    this.file = file;
    this.position = 4;
    this.format();
  }

  raw(type: number, body: Buffer, flags = 0): void {
    this.#add(type, body, false, flags);
  }

  #add(type: number, body: Buffer, hideEnd = false, flags = 0): void {
    const length = 19 + body.length + (this.checksums || type === 15 ? 4 : 0);
    const end = this.position + length;
    const bytes = eventBytes(type, body, {
      seconds: this.seconds,
      endLow: hideEnd ? 0 : end % 0x1_0000_0000,
      flags,
      checksums: this.checksums || type === 15,
    });
    this.events.push({ file: this.file, start: this.position, end, bytes });
    this.position = end;
  }
}

/** What a dump sends before the first event from this place on. */
export function dumpHead(place: Position, checksums: boolean): Buffer[] {
  const rotate = eventBytes(4, Buffer.concat([positionBytes(place.position), Buffer.from(place.file)]), {
    seconds: 0,
    endLow: 0,
    flags: 0x20,
    checksums,
  });
  if (place.position === 4) return [rotate];
  const format = eventBytes(15, formatBody(checksums), { seconds: 0, endLow: 0, flags: 0, checksums: true });
  return [rotate, format];
}

function formatBody(checksums: boolean): Buffer {
  const body = Buffer.alloc(2 + 50 + 4 + 1 + 40 + 1);
  body[0] = 4;
  body[56] = 19;
  body[body.length - 1] = checksums ? 1 : 0;
  return body;
}

/** The dump command names 32 bits. */
function positionBytes(position: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(position));
  return bytes;
}

interface Header {
  readonly seconds: number;
  readonly endLow: number;
  readonly flags: number;
  readonly checksums: boolean;
}

function eventBytes(type: number, body: Buffer, header: Header): Buffer {
  const head = Buffer.alloc(19);
  head.writeUInt32LE(header.seconds, 0);
  head[4] = type;
  head.writeUInt32LE(1, 5);
  head.writeUInt32LE(19 + body.length + (header.checksums ? 4 : 0), 9);
  head.writeUInt32LE(header.endLow, 13);
  head.writeUInt16LE(header.flags, 17);
  const event = Buffer.concat([head, body]);
  if (!header.checksums) return event;
  const sum = Buffer.alloc(4);
  sum.writeUInt32LE(crc32(event));
  return Buffer.concat([event, sum]);
}
