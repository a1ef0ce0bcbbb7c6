/** `magento-edge-agent verify`: consumers compare an entity with the source, and drift is healed. */
import { askIfRunning } from "../control/control-client.ts";
import { type ControlArguments, textArgument } from "../control/protocol.ts";
import { AgentError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import type { VerificationFacts } from "../observe/facts.ts";
import { addJobs, type ResyncAccepted } from "../snapshots.ts";
import type { VerifyAccepted, VerifyRequest } from "../verifications.ts";
import { type Command, type Output, sharedOptions } from "./command.ts";
import { findSockets } from "./find-sockets.ts";
import { loadFrom, loadMapping, settingsOrThrow } from "./load-settings.ts";
import { askedRows, isAccepted, rowsOptions, scopeArgument } from "./resync.ts";
import { askStatus, durationMs } from "./status.ts";
import { verificationText } from "./status-report.ts";
import { withStoppedState } from "./stopped-state.ts";

const LOOK_MS = 500;

export const verifyCommand: Command = {
  name: "verify",
  summary: "Has consumers compare an entity with the source, while the stream goes on.",
  positionals: ["ENTITY"],
  options: {
    ...rowsOptions,
    all: { type: "boolean", text: "All of its rows; so it is without one of these three." },
    wait: {
      type: "string",
      value: "10m",
      bare: "10m",
      text: "Wait for the verdict, at most so long. Exit 0: no drift, or healed and compared again; else 1.",
    },
    "env-file": sharedOptions.envFile,
  },
  more: () =>
    [
      "Rows are read as by a resync, but only hashes of them are sent (magento.digest). Consumers compare and report;",
      "with VERIFY_REPORTS_URL the agent asks for the report, has drifted rows read again, and has them compared once",
      "more. Without it consumers alone know, and resync ENTITY --keys=ID,... heals. status shows how far it is.",
    ].join("\n"),
  run: async (args, output) => {
    const { entity, scope } = askedRows(args, "verify");
    const request: VerifyRequest = { entity, scope: scope ?? { kind: "all" } };
    const wait = args.text("wait");
    const waitMs = wait === null ? null : durationMs(wait, "wait", "verify");
    const sockets = findSockets(args);
    const question = { command: "verify", args: { ...request }, timeoutMs: 120_000 };
    const running = await askIfRunning(sockets.admin, question, isVerifyAccepted);
    if (running !== null) {
      told(running, running.asks, output);
      if (waitMs === null) return 0;
      if (!running.asks) {
        output.err("the verdict is not waited for: only consumers will know it\n");
        return 1;
      }
      return verdictOf(running, { path: sockets.readOnly, waitMs, output });
    }
    if (waitMs !== null) {
      throw new AgentError("AGENT_NOT_RUNNING", "no agent is running that could be waited for");
    }
    const settings = settingsOrThrow(loadFrom(args, true));
    const mapping = loadMapping(settings);
    const [accepted] = await withStoppedState(settings, output, (spool) =>
      addJobs(spool, mapping, [{ ...request, purpose: "digests" }]),
    );
    if (accepted !== undefined) told(accepted, settings.verifyReportsUrl !== null, output);
    return 0;
  },
};

/** What came over the socket. Throws USAGE. */
export function verifyArguments(args: ControlArguments): VerifyRequest {
  return { entity: textArgument(args, "entity"), scope: scopeArgument(args["scope"]) };
}

function told({ entity, generation, ahead }: ResyncAccepted, asks: boolean, output: Output): void {
  const after = ahead === 0 ? "" : `, after ${ahead} that wait`;
  output.out(`verification ${generation} of ${entity} is taken${after}\n`);
  output.out(
    asks
      ? "status shows how far it is, and what it found; drifted rows are read again by themselves\n"
      : `VERIFY_REPORTS_URL is not set: drift is reported at the consumers, and resync ${entity} --keys=ID,... heals it\n`,
  );
}

interface Waiting {
  readonly path: string;
  readonly waitMs: number;
  readonly output: Output;
}

/** Waits for the end; the exit code. */
async function verdictOf({ generation }: VerifyAccepted, { path, waitMs, output }: Waiting): Promise<number> {
  const deadlineMs = systemClock.monotonicMs() + waitMs;
  for (;;) {
    const found = (await askStatus(path)).verifications.find((one) => one.generation === generation);
    if (found !== undefined && found.state === "done") return verdict(found, output);
    if (systemClock.monotonicMs() >= deadlineMs) {
      const how = found === undefined ? "nothing is known of it" : verificationText(found, Date.now());
      output.err(`no verdict after ${Math.round(waitMs / 1000)} s: ${how}\n`);
      return 1;
    }
    await systemClock.sleep(LOOK_MS);
  }
}

function verdict(found: VerificationFacts, output: Output): number {
  output.out(`${verificationText(found, found.endedAtMs ?? 0)}\n`);
  return found.outcome === "equal" || found.outcome === "healed" ? 0 : 1;
}

function isVerifyAccepted(value: unknown): value is VerifyAccepted {
  return isAccepted(value) && "asks" in value && typeof value.asks === "boolean";
}
