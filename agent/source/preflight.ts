import type { FollowedTable } from "../change.ts";
import type { ErrorCode } from "../kernel/errors.ts";
import { openControl } from "./control-connection.ts";
import { readServerFacts, type ServerFacts } from "./server-facts.ts";
import type { SourceSettings } from "./settings.ts";

export interface Fault {
  readonly name: string;
  readonly value: string;
  readonly rule: string;
  readonly mend: string;
  readonly severity: "fault" | "advice";
  readonly code: ErrorCode;
}

export interface Inspection {
  readonly facts: ServerFacts | null;
  readonly faults: readonly Fault[];
}

export async function inspectServer(
  settings: SourceSettings,
  _tables: readonly FollowedTable[],
): Promise<Inspection> {
  await using control = await openControl(settings);
  return { facts: await readServerFacts(control), faults: [] };
}
