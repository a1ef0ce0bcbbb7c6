/** The command line's end of a control socket. */
import { connect } from "node:net";
import { AgentError } from "../kernel/errors.ts";
import { ANSWER_BYTES_MAX, type ControlAnswer, type ControlArguments, parseAnswer } from "./protocol.ts";

export interface ControlQuestion {
  readonly command: string;
  readonly args?: ControlArguments;
  /** How long the agent may stay silent; 5 seconds without it. */
  readonly timeoutMs?: number;
}

/**
 * Asks the running agent. Rejects with AGENT_NOT_RUNNING when nobody answers, with CONTROL_RIGHTS
 * when the socket is closed to this user, and else with the error that the agent answers.
 */
export async function askAgent(path: string, question: ControlQuestion): Promise<unknown> {
  const { command, args = {}, timeoutMs = 5000 } = question;
  const answer = await exchange(path, `${JSON.stringify({ command, args })}\n`, timeoutMs);
  if (answer.ok) return answer.result;
  throw new AgentError(answer.code, answer.message, { hint: answer.hint });
}

/**
 * The running agent's answer, or null when nobody answers: then the command goes on with the state
 * of a stopped agent. Rejects as `askAgent` does, and with COMMAND_REFUSED for another form of answer.
 */
export async function askIfRunning<T>(
  path: string,
  question: ControlQuestion,
  isAnswer: (answer: unknown) => answer is T,
): Promise<T | null> {
  let answer: unknown;
  try {
    answer = await askAgent(path, question);
  } catch (error) {
    if (error instanceof AgentError && error.code === "AGENT_NOT_RUNNING") return null;
    throw error;
  }
  if (isAnswer(answer)) return answer;
  throw new AgentError("COMMAND_REFUSED", "the agent's answer is not understood", {
    hint: "Is the running agent of another version?",
  });
}

function exchange(path: string, request: string, timeoutMs: number): Promise<ControlAnswer> {
  return new Promise((resolve, reject) => {
    const chunks: string[] = [];
    let length = 0;
    const socket = connect(path, () => socket.write(request));
    socket.setEncoding("utf8");
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error("no answer in time")));
    socket.on("data", (chunk: string) => {
      chunks.push(chunk);
      length += chunk.length;
      if (length > ANSWER_BYTES_MAX) socket.destroy(new Error("the answer is too long"));
    });
    socket.on("error", (cause: NodeJS.ErrnoException) => reject(notReached(path, cause)));
    socket.on("end", () => {
      const answer = parseAnswer(chunks.join(""));
      if (answer === null) reject(new AgentError("AGENT_NOT_RUNNING", `no whole answer on ${path}`));
      else resolve(answer);
    });
  });
}

function notReached(path: string, cause: NodeJS.ErrnoException): AgentError {
  if (cause.code === "EACCES" || cause.code === "EPERM") {
    return new AgentError("CONTROL_RIGHTS", `this user may not use the control socket ${path}`, { cause });
  }
  return new AgentError("AGENT_NOT_RUNNING", `no agent answers on ${path} (${cause.code ?? cause.message})`, {
    cause,
  });
}
