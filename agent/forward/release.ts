/**
 * What an operator does about events that are held though they are poison: `topic release`. Within
 * what is released an event that is refused is given up like any other, to the dead letters and
 * quarantine, whatever the rule of storms says. It lasts until it is used up or the agent ends.
 */
import { AgentError } from "../kernel/errors.ts";
import { type Holds, QUARANTINE_FULL, STORM } from "./holds.ts";
import type { Lane } from "./lane.ts";

export interface ReleaseRequest {
  readonly topic: string;
  /** So many refused events; 0 takes back what is left. Or one event, by its id. */
  readonly what: { readonly max: number } | { readonly eventId: string };
}

export interface Released {
  readonly topic: string;
  /** Refused events that will be given up now. */
  readonly events: number;
  readonly eventId: string | null;
  /** How many more the quarantine takes before QUARANTINE_MAX holds the topic. */
  readonly room: number;
}

interface ReleaseParts {
  readonly lanes: readonly Lane[];
  readonly holds: Holds;
  readonly room: number;
}

/** Throws COMMAND_REFUSED where there is nothing that could be released. */
export function release({ topic, what }: ReleaseRequest, { lanes, holds, room }: ReleaseParts): Released {
  const concerned = lanes.filter((lane) => lane.queue === topic || lane.nextTopic() === topic);
  if (concerned.length === 0) {
    const held = holds.heldTopics();
    const hint = held.length === 0 ? "No topic is on hold." : `On hold: ${held.join(", ")}.`;
    throw new AgentError("COMMAND_REFUSED", `nothing waits for the topic ${topic}`, { hint });
  }
  if ("eventId" in what) releaseEvent(concerned, topic, what.eventId);
  else for (const lane of concerned) lane.refusals.release(what.max);
  if (isAboutRefusals(holds.of(topic)?.code)) holds.refusalsSettled(topic);
  const [first] = concerned;
  return {
    topic,
    events: "max" in what ? (first?.refusals.released ?? 0) : 1,
    eventId: "eventId" in what ? what.eventId : null,
    room,
  };
}

function isAboutRefusals(code: string | undefined): boolean {
  return code === STORM || code === QUARANTINE_FULL;
}

/** Only one that was tried in vain: nobody gives up what may be accepted by the next request. */
function releaseEvent(lanes: readonly Lane[], topic: string, id: string): void {
  for (const lane of lanes) {
    const slot = lane.window.find(id);
    if (slot === null) continue;
    if (slot.refusals === 0 && !lane.failing.has(slot)) {
      throw new AgentError("COMMAND_REFUSED", `the event ${id} waits, and nothing refused it`);
    }
    slot.released = true;
    return;
  }
  const hint = "status names the event that holds the topic.";
  throw new AgentError("COMMAND_REFUSED", `no event ${id} is tried for ${topic}`, { hint });
}
