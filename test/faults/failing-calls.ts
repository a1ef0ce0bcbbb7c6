/** System calls of a running process that fail as told, by strace's injection. Needs the right to trace. */
import { spawn } from "node:child_process";
import { ensureDebianPackages } from "../servers/packages.ts";

export interface FailingCalls {
  /** Ends the injection; the process goes on untouched. Idempotent. */
  end(): Promise<void>;
}

/** Resolves when every thread of the process is under the rule, such as `fdatasync:error=EIO`. */
export async function failCalls(pid: number, call: string, errno: string): Promise<FailingCalls> {
  await ensureDebianPackages(["strace"], "failing system calls");
  const strace = spawn("strace", [
    "-f",
    "-p",
    String(pid),
    "-o",
    "/dev/null",
    "-e",
    `trace=${call}`,
    "-e",
    `inject=${call}:error=${errno}`,
  ]);
  const ended = new Promise<void>((resolve) => strace.once("exit", () => resolve()));
  await new Promise<void>((resolve, reject) => {
    let told = "";
    strace.stderr.on("data", (bytes: Buffer) => {
      told += bytes.toString("utf8");
      if (/attached/.test(told)) resolve();
    });
    strace.once("exit", () => reject(new Error(`strace cannot trace ${pid}: ${told}`)));
  });
  return {
    end: async () => {
      strace.kill("SIGINT");
      await ended;
    },
  };
}
