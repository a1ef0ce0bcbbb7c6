/** What this program is: the bundler puts version and commit in place of the two names. */
import { STATE_FORMAT_VERSION } from "../change.ts";

declare const EDGE_AGENT_VERSION: string | undefined;
declare const EDGE_AGENT_COMMIT: string | undefined;

export interface BuildInfo {
  readonly version: string;
  readonly commit: string;
  readonly node: string;
  readonly platform: string;
  readonly stateFormat: number;
}

export const buildInfo: BuildInfo = {
  version: typeof EDGE_AGENT_VERSION === "string" ? EDGE_AGENT_VERSION : "0.0.0-source",
  commit: typeof EDGE_AGENT_COMMIT === "string" ? EDGE_AGENT_COMMIT : "unknown",
  node: process.versions.node,
  platform: `${process.platform}-${process.arch}`,
  stateFormat: STATE_FORMAT_VERSION,
};
