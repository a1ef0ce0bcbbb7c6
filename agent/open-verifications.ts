/** Joins the watch over verifications with the rooms that it works with. */
import type { Clock, Log } from "./kernel/service.ts";
import type { MappingInUse } from "./mapping-in-use.ts";
import type { Observer } from "./observe/observer.ts";
import type { VerificationReports } from "./ports.ts";
import { addJobs, type ResyncAccepted } from "./snapshots.ts";
import type { Spool } from "./spool/spool.ts";
import { Verifications } from "./verifications.ts";

export interface VerificationRooms {
  readonly spool: Spool;
  readonly mapped: MappingInUse;
  readonly observer: Observer;
  readonly instance: string;
  readonly reports: VerificationReports | null;
  readonly clock: Clock;
  readonly log: Log;
}

/** @param atRest runs a change while nothing is captured */
export function openVerifications(
  rooms: VerificationRooms,
  atRest: (change: () => Promise<void>) => Promise<void>,
): Promise<Verifications> {
  const { spool, mapped, observer, instance, reports, clock, log } = rooms;
  return Verifications.open({
    spool,
    instance,
    entities: () => {
      const { entities } = mapped.rooms.transform.topics;
      return mapped.mapping.entities.map(({ entity, table }) => ({
        entity,
        table,
        topic: entities[entity] ?? "",
      }));
    },
    addJobs: async (requests) => {
      const added = Promise.withResolvers<readonly ResyncAccepted[]>();
      await atRest(async () => added.resolve(await addJobs(spool, mapped.mapping, requests)));
      return added.promise;
    },
    reports,
    reported: (table, counts) => observer.verified(table, counts),
    clock,
    log,
  });
}
