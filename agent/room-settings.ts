/** What the rooms are told of the settings. */
import { databaseAddress, databaseServerId } from "./config/derived.ts";
import type { Settings } from "./config/settings-table.ts";
import type { DaprClient } from "./forward/dapr-client.ts";
import type { SourceSettings } from "./source/settings.ts";
import type { Mapping } from "./transform/mapping.ts";
import { createTransform, type Transform } from "./transform/transform.ts";

/** Largest payload of one event: Dapr's 4 MiB for a whole body, less what stands around an event. */
export const EVENT_BYTES_MAX = 4 * 1024 * 1024 - 64 * 1024;

export function makeTransform(
  settings: Settings,
  mapping: Mapping,
  state: { readonly instance: string; readonly schemaVersions: Readonly<Record<string, number>> },
): Transform {
  return createTransform({
    mapping,
    shop: settings.shopName,
    database: settings.dbName,
    namespace: settings.identityNamespace,
    pubsub: settings.daprPubsub,
    instance: state.instance,
    schemaVersions: state.schemaVersions,
    fieldHashKey: settings.fieldHashKey.read(),
    maxEventBytes: EVENT_BYTES_MAX,
  });
}

export function sourceSettings(settings: Settings): SourceSettings {
  const address = databaseAddress(settings);
  const start = settings.startPosition;
  return {
    host: address.kind === "tcp" ? address.host : "127.0.0.1",
    port: address.kind === "tcp" ? address.port : 3306,
    socketPath: address.kind === "socket" ? address.path : null,
    user: settings.dbUser,
    password: () => settings.dbPassword.read() ?? "",
    database: settings.dbName,
    tablePrefix: settings.tablePrefix ?? "",
    serverId: databaseServerId(settings),
    tls: settings.dbTls,
    tlsCa: settings.dbTlsCa,
    startPosition:
      start === null ? null : start.kind === "gtid" ? start.gtidSet : `${start.file}:${start.position}`,
  };
}

export function daprSettings(settings: Settings): ConstructorParameters<typeof DaprClient>[0] {
  return {
    endpoint: settings.daprEndpoint,
    pubsub: settings.daprPubsub,
    token: () => settings.daprApiToken.read(),
    tls: { ca: settings.daprTlsCa, cert: settings.daprTlsCert, key: settings.daprTlsKey },
    httpsProxy: settings.httpsProxy,
    noProxy: settings.noProxy,
  };
}
