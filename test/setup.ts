/**
 * Brings everything that tests, demo and benchmarks need onto the machine, and says what: Debian
 * packages for MariaDB and Redis, and daprd, built once into the cache. Idempotent.
 */
import { ensureDaprd } from "./servers/daprd-binary.ts";
import { ensureMariadb } from "./servers/mariadb-template.ts";
import { ensureDebianPackages } from "./servers/packages.ts";

const mariadb = await ensureMariadb();
console.log(`MariaDB ${mariadb.version}: ${mariadb.command}`);
await ensureDebianPackages(["redis-server"], "the broker of the tests");
console.log("Redis: redis-server");
console.log(`daprd: ${await ensureDaprd()}`);
