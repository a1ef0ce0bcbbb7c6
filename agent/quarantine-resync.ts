/**
 * A quarantined event that a newer one of its entity has overtaken is not sent again: a consumer would
 * ignore it. What its operator wants is that the entity comes right, so its row is read again, and the
 * event leaves quarantine when that was accepted.
 */
import type { CaptureRounds } from "./capture-rounds.ts";
import type { ReadAgainAnswer } from "./commands/quarantine-desk.ts";
import type { Settings } from "./config/settings-table.ts";
import { AgentError } from "./kernel/errors.ts";
import type { MappingInUse } from "./mapping-in-use.ts";
import type { SpoolWriter } from "./ports.ts";
import { addResync, RESYNC_KEYS_MAX } from "./snapshots.ts";
import type { Quarantine } from "./spool/quarantine.ts";

export interface QuarantineResyncParts {
  readonly settings: Pick<Settings, "snapshotMode">;
  readonly spool: Pick<SpoolWriter, "checkpoint" | "append"> & { readonly quarantined: Quarantine };
  readonly mapped: {
    readonly mapping: MappingInUse["mapping"];
    readonly rooms: { readonly transform: Pick<MappingInUse["rooms"]["transform"], "topics"> };
  };
  readonly capture: Pick<CaptureRounds, "atRest">;
}

/** Events of one entity, on one topic: one resync reads all of them. */
interface Together {
  readonly entity: string;
  /** Null: the entity's own. */
  readonly topic: string | null;
  readonly ids: Set<string>;
  readonly keys: Set<string>;
}

/** Starts the resyncs; says of each event which one reads its row, or why none does. */
export async function readQuarantinedAgain(
  parts: QuarantineResyncParts,
  ids: readonly string[],
): Promise<ReadonlyMap<string, ReadAgainAnswer>> {
  const answers = new Map<string, ReadAgainAnswer>();
  const groups = new Map<string, Together>();
  for (const id of ids) {
    const found = await rowOf(parts, id);
    if ("refused" in found || "resync" in found) answers.set(id, found);
    else addTo(groups, id, found);
  }
  for (const group of groups.values()) {
    const answer = await begin(parts, group);
    for (const id of group.ids) answers.set(id, answer);
  }
  return answers;
}

interface WantedRow {
  readonly entity: string;
  readonly key: string;
  readonly topic: string | null;
}

async function rowOf(
  { settings, spool, mapped }: QuarantineResyncParts,
  id: string,
): Promise<WantedRow | ReadAgainAnswer> {
  const found = await spool.quarantined.find(id);
  if (found === null) return { refused: "it was dropped meanwhile" };
  const { resync, verdict, event } = found;
  const jobs = spool.checkpoint()?.snapshot?.jobs ?? [];
  if (resync !== null && jobs.some(({ generation }) => generation === resync)) return { resync };
  const { entity = null, magentoId = null } = verdict.about ?? {};
  if (entity === null || magentoId === null) return { refused: "which row it is about cannot be told" };
  if (settings.snapshotMode === "never") {
    return { refused: `SNAPSHOT_MODE=never; resync ${entity} --keys=${magentoId} sends its state of now` };
  }
  const own = mapped.rooms.transform.topics.entities[entity];
  return { entity, key: String(magentoId), topic: event.topic === own ? null : event.topic };
}

function addTo(groups: Map<string, Together>, id: string, { entity, key, topic }: WantedRow): void {
  // Full groups stay under other names.
  for (let part = 0; ; part += 1) {
    const name = JSON.stringify([entity, topic, part]);
    const group = groups.get(name) ?? { entity, topic, ids: new Set(), keys: new Set() };
    if (group.keys.size >= RESYNC_KEYS_MAX && !group.keys.has(key)) continue;
    group.ids.add(id);
    group.keys.add(key);
    groups.set(name, group);
    return;
  }
}

async function begin(
  { spool, mapped, capture }: QuarantineResyncParts,
  { entity, topic, ids, keys }: Together,
): Promise<ReadAgainAnswer> {
  const scope = { kind: "keys", keys: [...keys] } as const;
  let resync = 0;
  try {
    await capture.atRest(async () => {
      ({ generation: resync } = await addResync(spool, mapped.mapping, { entity, scope, topic }));
      // Before a row of it can be read, and so before one can be accepted.
      await spool.quarantined.awaitResync(ids, resync);
    }, true);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    return { refused: `its row cannot be read again: ${error.message}` };
  }
  return { resync };
}
