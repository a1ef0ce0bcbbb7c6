import { serverKinds, usualKind } from "../servers/matrix.ts";
import { databaseOutages, declareDatabaseOutages, outagesOfTheServer } from "./database-outages.ts";

// The long run has all of them on every server.
for (const kind of serverKinds) {
  if (kind === usualKind) declareDatabaseOutages(kind, databaseOutages);
  else if (kind.hasGtids) declareDatabaseOutages(kind, outagesOfTheServer);
}
