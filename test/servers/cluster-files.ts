import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";

const cluster = join(import.meta.dirname, "..", "..", "cluster");

/** Where the gateway's Configuration lies; it needs no adaptation. */
export const gatewayConfigFile = join(cluster, "configuration", "edge-gateway.yaml");

export interface ClusterFilesOptions {
  readonly redisPort: number;
  /** gateway: what the daprd of the agent's events gets. consumer: with subscriptions and retries. */
  readonly role: "gateway" | "consumer";
  /** Shortens the pauses between the consumer's retries; their number stays. */
  readonly retryMaxInterval?: string;
  /** Sets metadata of the component, such as processingTimeout. */
  readonly componentMetadata?: Readonly<Record<string, string>>;
  /** Topics that a test adds to what the gateway may publish. */
  readonly moreTopics?: readonly string[];
}

/**
 * Writes cluster/'s own files into a directory, for a daprd on this machine: only the address of
 * Redis and its password are changed, and what the options say.
 */
export function writeClusterFiles(directory: string, options: ClusterFilesOptions): string {
  mkdirSync(directory, { recursive: true });
  const component = asRecord(parse(readFileSync(join(cluster, "components", "pubsub-redis.yaml"), "utf8")));
  const spec = asRecord(component["spec"]);
  spec["metadata"] = componentMetadata(spec["metadata"], options);
  writeFileSync(join(directory, "pubsub-redis.yaml"), stringify(component));
  if (options.role === "gateway") return directory;
  for (const file of readdirSync(join(cluster, "subscriptions"))) {
    writeFileSync(
      join(directory, `subscription-${file}`),
      readFileSync(join(cluster, "subscriptions", file)),
    );
  }
  for (const file of readdirSync(join(cluster, "resiliency"))) {
    const text = readFileSync(join(cluster, "resiliency", file), "utf8");
    const interval = options.retryMaxInterval;
    const adapted =
      interval === undefined ? text : text.replace(/maxInterval: \S+/, `maxInterval: ${interval}`);
    writeFileSync(join(directory, `resiliency-${file}`), adapted);
  }
  return directory;
}

function componentMetadata(entries: unknown, options: ClusterFilesOptions): Record<string, unknown>[] {
  if (!Array.isArray(entries)) throw new Error("the component has no metadata");
  const adapted: Record<string, unknown>[] = [];
  for (const entry of entries) {
    const item = asRecord(entry);
    if (item["name"] === "redisPassword") continue;
    if (item["name"] === "redisHost") item["value"] = `127.0.0.1:${options.redisPort}`;
    if (item["name"] === "publishingScopes") {
      const more = (options.moreTopics ?? []).map((topic) => `,${topic}`).join("");
      item["value"] = String(item["value"]).replace(";", `${more};`);
    }
    const set = options.componentMetadata?.[String(item["name"])];
    if (set !== undefined) item["value"] = set;
    adapted.push(item);
  }
  return adapted;
}

function asRecord(value: unknown): Record<string, unknown> {
  if (!isRecord(value)) throw new Error("a file of cluster/ has another shape than expected");
  return value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
