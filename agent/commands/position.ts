/** `magento-edge-agent position restart`: a new epoch at another place, told to consumers as a gap. */
import { guardMachine } from "../adoption.ts";
import { makeTransform, sourceSettings } from "../room-settings.ts";
import { takeSupervisor } from "../config/load.ts";
import type { Settings } from "../config/settings-table.ts";
import { askIfRunning } from "../control/control-client.ts";
import { systemClock } from "../kernel/service.ts";
import { type MachineFacts, readMachine } from "../machine.ts";
import { type Beginning, beginAnew } from "../new-beginning.ts";
import { findNewPlace } from "../source/new-place.ts";
import { voidedStates } from "../index-upkeep.ts";
import { wholeTables } from "../snapshots.ts";
import type { Spool } from "../spool/spool.ts";
import { guardIdentity, readSchemas } from "../state-guard.ts";
import type { Mapping } from "../transform/mapping.ts";
import { type Command, type Output, sharedOptions, usageError } from "./command.ts";
import { findSockets } from "./find-sockets.ts";
import { loadFrom, loadMapping, settingsOrThrow } from "./load-settings.ts";
import { withStoppedState } from "./stopped-state.ts";

export const positionRestartCommand: Command = {
  name: "position restart",
  summary:
    "Goes on at another place of the binlog after the position was lost, and tells consumers of the gap.",
  positionals: [],
  options: {
    from: {
      type: "string",
      value: "current|FILE:POSITION|GTID",
      text: "Where to go on: the end of the binlog now, a place in it, or behind a GTID.",
    },
    "env-file": sharedOptions.envFile,
  },
  more: () =>
    [
      "Changes between the old and the new place are not read: a magento.gap event on the control topic says from",
      "where to where, and a new epoch makes everything from then on newer than what was sent before. Unless",
      "SNAPSHOT_MODE=never, all rows are then read again: what changed in the gap comes right, and what was deleted in",
      "it is gone at the consumers too.",
      "A running agent does it at once (over its admin socket, root), a stopped one at its next start.",
    ].join("\n"),
  run: async (args, output) => {
    const from = args.text("from");
    if (from === null)
      throw usageError("where to? --from=current is the end of the binlog now", "position restart");
    const question = { command: "position restart", args: { from }, timeoutMs: 120_000 };
    const running = await askIfRunning(findSockets(args).admin, question, isBeginning);
    if (running !== null) return told(running, output);
    const settings = settingsOrThrow(loadFrom(args, true));
    const mapping = loadMapping(settings);
    const machine = readMachine({ root: "/", runtimeDirectory: takeSupervisor().runtimeDirectory });
    // Before the state is opened: the password may be one that only root can read.
    const place = await findNewPlace(sourceSettings(settings), from);
    const work = (spool: Spool): Promise<Beginning> =>
      restartStopped(spool, { settings, mapping, machine, placeAt: async () => place }, from);
    return told(await withStoppedState(settings, output, work), output);
  },
};

interface StoppedParts {
  readonly settings: Settings;
  readonly mapping: Mapping;
  readonly machine: MachineFacts;
  readonly placeAt: Parameters<typeof beginAnew>[0]["placeAt"];
}

async function restartStopped(spool: Spool, parts: StoppedParts, from: string): Promise<Beginning> {
  const { settings, mapping, machine, placeAt } = parts;
  const foreign = await guardMachine(spool.meta, machine);
  if (foreign !== null) throw foreign;
  const instance = await guardIdentity(spool.meta, settings);
  const schemas = Object.entries((await readSchemas(spool.meta)) ?? {});
  const schemaVersions = Object.fromEntries(schemas.map(([entity, { version }]) => [entity, version]));
  const transform = makeTransform(settings, mapping, { instance, schemaVersions });
  const wanted = settings.snapshotMode === "never" ? [] : wholeTables(mapping, "position-lost");
  const followed = mapping.entities.map(({ table }) => table);
  const voidIndex = () => voidedStates(spool.index, transform.index.relations);
  const nowMs = systemClock.wallMs();
  return beginAnew({ spool, transform, placeAt, followed, wanted, voidIndex, nowMs }, from);
}

function told({ epoch, from, to }: Beginning, output: Output): number {
  output.out(
    `epoch ${epoch} begins at ${to}; consumers are told that nothing was read from ${from} to there\n`,
  );
  return 0;
}

function isBeginning(value: unknown): value is Beginning {
  if (typeof value !== "object" || value === null) return false;
  if (!("epoch" in value && "from" in value && "to" in value)) return false;
  return typeof value.epoch === "number" && typeof value.from === "string" && typeof value.to === "string";
}
