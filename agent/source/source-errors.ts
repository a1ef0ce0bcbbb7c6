/** Foreign errors become the agent's here, once, by their code. */
import { AssertionError } from "../kernel/assert.ts";
import { AgentError, asError, type ErrorCode } from "../kernel/errors.ts";

const authCodes = new Set([
  "ER_ACCESS_DENIED_ERROR",
  "ER_ACCESS_DENIED_NO_PASSWORD_ERROR",
  "ER_HOST_NOT_PRIVILEGED",
  "ER_NOT_SUPPORTED_AUTH_MODE",
  "ER_MUST_CHANGE_PASSWORD",
  "ER_MUST_CHANGE_PASSWORD_LOGIN",
  "ER_ACCOUNT_HAS_BEEN_LOCKED",
  "AUTH_SWITCH_PLUGIN_ERROR",
]);
/** Numbers that MariaDB gives and the client has no name for: no password, locked account. */
const authNumbers = new Set([1698, 4151, 3118, 1862]);
const rightsCodes = new Set([
  "ER_DBACCESS_DENIED_ERROR",
  "ER_TABLEACCESS_DENIED_ERROR",
  "ER_SPECIFIC_ACCESS_DENIED_ERROR",
  "ER_COLUMNACCESS_DENIED_ERROR",
]);
/** The server's one number for everything that ends a dump. */
export const DUMP_REFUSED = 1236;
/** MariaDB's ER_SLAVE_SAME_ID; MySQL says it with the number above. */
const REPLICA_SAME_ID = 4052;

export interface ServerError {
  readonly code: string;
  readonly number: number;
  readonly message: string;
}

export function serverErrorOf(thrown: unknown): ServerError {
  const error: Error & { code?: unknown; errno?: unknown; sqlMessage?: unknown } = asError(thrown);
  return {
    code: typeof error.code === "string" ? error.code : "",
    number: typeof error.errno === "number" ? error.errno : 0,
    message: typeof error.sqlMessage === "string" ? error.sqlMessage : error.message,
  };
}

export function translateError(thrown: unknown): AgentError {
  if (thrown instanceof AgentError) return thrown;
  if (isMistake(thrown)) {
    return new AgentError("BUG", `talking to the database failed: ${asError(thrown).message}`, {
      cause: thrown,
    });
  }
  const { code, number, message } = serverErrorOf(thrown);
  const made = (agentCode: ErrorCode, hint?: string): AgentError =>
    new AgentError(agentCode, message === "" ? code : message, {
      cause: thrown,
      ...(hint === undefined ? {} : { hint }),
    });
  if (authCodes.has(code) || authNumbers.has(number)) return made("SOURCE_AUTH");
  if (rightsCodes.has(code)) return made("SOURCE_RIGHTS");
  if (code === "ER_BAD_DB_ERROR")
    return made("SOURCE_UNSUITABLE", "Set MAGENTO_DB_NAME to the shop's database.");
  if (number === REPLICA_SAME_ID) return made("SERVER_ID_TAKEN");
  // 1236 has no code of its own for "this id is in use"; only the server's text tells it from the
  // other reasons. Whether the position is gone is looked up, never read out of the text.
  if (number === DUMP_REFUSED && /same server_(uu)?id|server_uuid\/server_id/i.test(message)) {
    return made("SERVER_ID_TAKEN");
  }
  if (isTlsCode(code)) {
    return made("SOURCE_UNREACHABLE", "See MAGENTO_DB_TLS and MAGENTO_DB_TLS_CA: the TLS handshake failed.");
  }
  return made("SOURCE_UNREACHABLE");
}

/** What no server and no network can cause; waiting for it to pass would hide it for ever. */
function isMistake(thrown: unknown): boolean {
  return (
    thrown instanceof TypeError ||
    thrown instanceof SyntaxError ||
    thrown instanceof ReferenceError ||
    thrown instanceof RangeError ||
    thrown instanceof AssertionError
  );
}

export function isTlsCode(code: string): boolean {
  return (
    code.startsWith("HANDSHAKE_") ||
    code.startsWith("ERR_TLS") ||
    code.startsWith("ERR_SSL") ||
    code.includes("CERT")
  );
}

export function isDumpRefused(error: AgentError): boolean {
  return error.cause !== undefined && serverErrorOf(error.cause).number === DUMP_REFUSED;
}

/** What is in the binlog stays there, whatever setting is mended. */
const goOnBehind =
  "Then position restart --from=current goes on behind what is written already, and reads all rows again unless SNAPSHOT_MODE=never.";

/** The same error with the place in the binlog, where it is about what stands there. */
export function locatedError(error: AgentError, place: string): AgentError {
  if (error.code !== "SOURCE_UNREADABLE" && error.code !== "SCHEMA_UNKNOWN") return error;
  return new AgentError(error.code, `${place}: ${error.message}`, {
    cause: error,
    hint: error.code === "SOURCE_UNREADABLE" ? `${error.hint} ${goOnBehind}` : error.hint,
  });
}
