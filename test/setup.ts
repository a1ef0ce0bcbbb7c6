/**
 * Brings everything that tests, demo and benchmarks need onto the machine, and says what: Debian
 * packages for MariaDB and Redis, newer MariaDB and MySQL and a systemd to boot as Debian trees of their own, daprd,
 * and the volume that loses its power;
 * what is made is kept in the cache. Idempotent.
 */
import { ensurePowerCut } from "./faults/power-cut.ts";
import { ensureDaprd } from "./servers/daprd-binary.ts";
import { ensureMariadb } from "./servers/mariadb-template.ts";
import { ensureMysql } from "./servers/mysql.ts";
import { ensureDebianPackages } from "./servers/packages.ts";
import { ensureSystemd } from "./servers/systemd.ts";

const mariadb = await ensureMariadb();
console.log(`MariaDB ${mariadb.version}: ${mariadb.command}`);
const newer = await ensureMariadb("11.8");
console.log(`MariaDB ${newer.version}: ${newer.tree ?? ""}`);
const mysql = await ensureMysql();
console.log(`MySQL ${mysql.version}: ${mysql.tree}`);
await ensureDebianPackages(["redis-server"], "the broker of the tests");
console.log("Redis: redis-server");
console.log(`systemd: ${await ensureSystemd()}`);
console.log(`daprd: ${await ensureDaprd()}`);
console.log(`power-cut volume: ${await ensurePowerCut()}`);
