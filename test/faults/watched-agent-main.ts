/** What is bundled for kill tests: first the watch, then the agent, in this order. */
export * as watch from "./watched-agent.ts";
export * as agent from "../../agent/main.ts";
