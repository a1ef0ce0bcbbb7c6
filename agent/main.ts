/**
 * The program's door: command line -> command -> exit code. The rooms are put together in
 * assemble.ts; what each command does stands in commands/.
 */
import { runCommandLine } from "./commands/command-line.ts";

/** A handle that somebody forgot must not keep an ended agent alive under its supervisor. */
const LEFT_OPEN_MS = 2000;

async function main(): Promise<void> {
  // `head` and other readers may close the pipe before everything was written; that is no fault.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    process.exit(error.code === "EPIPE" ? 0 : 70);
  });
  const code = await runCommandLine(process.argv.slice(2), {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
  });
  process.exitCode = code;
  setTimeout(() => process.exit(code), LEFT_OPEN_MS).unref();
}

void main();
