import { serverKinds } from "../servers/matrix.ts";
import { databaseOutages, declareDatabaseOutages } from "./database-outages.ts";

for (const kind of serverKinds) declareDatabaseOutages(kind, databaseOutages);
