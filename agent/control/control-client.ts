/** The command line's end of the control socket. */
import { connect } from "node:net";
import { AgentError } from "../kernel/errors.ts";
import { ANSWER_BYTES_MAX, type ControlAnswer, parseAnswer } from "./protocol.ts";

/** Asks the running agent; rejects with AGENT_NOT_RUNNING when nobody answers. */
export async function askAgent(path: string, command: string, timeoutMs = 5000): Promise<unknown> {
  const answer = await exchange(path, `${JSON.stringify({ command })}\n`, timeoutMs);
  if (answer.ok) return answer.result;
  throw new AgentError("AGENT_NOT_RUNNING", answer.message, {
    hint: "Is the running agent of another version?",
  });
}

function exchange(path: string, request: string, timeoutMs: number): Promise<ControlAnswer> {
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = connect(path, () => socket.write(request));
    socket.setEncoding("utf8");
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error("no answer in time")));
    socket.on("data", (chunk: string) => {
      text += chunk;
      if (text.length > ANSWER_BYTES_MAX) socket.destroy(new Error("the answer is too long"));
    });
    socket.on("error", (cause: NodeJS.ErrnoException) => reject(notRunning(path, cause)));
    socket.on("end", () => {
      const answer = parseAnswer(text);
      if (answer === null) reject(new AgentError("AGENT_NOT_RUNNING", `no whole answer on ${path}`));
      else resolve(answer);
    });
  });
}

function notRunning(path: string, cause: NodeJS.ErrnoException): AgentError {
  if (cause.code === "EACCES") {
    const hint = "Use sudo, or join the group magento-edge-agent.";
    return new AgentError("AGENT_NOT_RUNNING", `no right to use the control socket ${path}`, { cause, hint });
  }
  return new AgentError("AGENT_NOT_RUNNING", `no agent answers on ${path} (${cause.code ?? cause.message})`, {
    cause,
  });
}
