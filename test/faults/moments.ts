/**
 * Moments of an agent's life at which it may be killed, and the small file in which a watched agent
 * (watched-agent.ts) keeps where it is, so that a kill's moment is known afterwards.
 */

/** In the order of an event's way. Several hold at a time: the rooms work side by side. */
export const moments = [
  "program starts",
  "spool opens",
  "position is proven",
  "append -> fsync",
  "fsync -> publish",
  "publish -> answer",
  "answer -> ack",
  "ack -> trim",
  "trim",
  "compaction",
  "inside a large transaction",
] as const;

export type Moment = (typeof moments)[number];

/** Where to end: when a moment begins for the n-th time, so much later. Read once, at the start. */
export interface KillOrder {
  readonly moment: Moment;
  readonly count: number;
  readonly delayUs: number;
}

/** Names the watched agent's directory; it holds the two files. */
export const watchVariable = "WATCHED_AGENT_DIRECTORY";
export const momentsFile = "moments";
export const orderFile = "order";

/** The file's content: for each moment how many things of the kind are under way. */
export function momentsNow(content: Buffer): Moment[] {
  // A process that was killed before it wrote a word was still starting.
  if (content.length < moments.length * 4) return ["program starts"];
  return moments.filter((_, at) => content.readInt32LE(at * 4) > 0);
}
