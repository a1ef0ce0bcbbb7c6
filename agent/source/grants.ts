/** The rights of the agent's account, as SHOW GRANTS prints them. */

export interface Grants {
  /** Rights on every schema, in capitals. */
  readonly global: ReadonlySet<string>;
  /** Whether the shop's tables can be read, all of them. */
  readonly readsShop: boolean;
}

interface Grant {
  readonly rights: readonly string[];
  readonly schema: string;
  readonly table: string;
}

export function readGrants(lines: readonly string[], database: string): Grants {
  const grants = lines.flatMap((line) => {
    const grant = parseGrant(line);
    return grant === null ? [] : [grant];
  });
  const global = new Set(grants.filter(isGlobal).flatMap(({ rights }) => rights));
  const readsShop = grants.some(
    (grant) =>
      (isGlobal(grant) || (grant.table === "*" && matches(grant.schema, database))) &&
      (grant.rights.includes("SELECT") || grant.rights.includes("ALL PRIVILEGES")),
  );
  return { global, readsShop };
}

/** Whether one of these rights is held on every schema. */
export function holds(grants: Grants, ...rights: readonly string[]): boolean {
  return grants.global.has("ALL PRIVILEGES") || rights.some((right) => grants.global.has(right));
}

function isGlobal({ schema, table }: Grant): boolean {
  return schema === "*" && table === "*";
}

function parseGrant(line: string): Grant | null {
  // The rights come before the first ON; a list of columns in them stands in brackets.
  const parts = /^GRANT (.+?) ON (?:TABLE )?(`(?:[^`]|``)+`|\*)\.(`(?:[^`]|``)+`|\*) TO /.exec(line);
  if (parts === null) return null;
  const [, rights = "", schema = "", table = ""] = parts;
  return {
    rights: rights.split(",").map((right) => right.trim().toUpperCase()),
    schema: unquoted(schema),
    table: unquoted(table),
  };
}

function unquoted(name: string): string {
  return name.startsWith("`") ? name.slice(1, -1).replaceAll("``", "`") : name;
}

/** A schema in a grant is a pattern: % any text, _ any sign, both escaped by a backslash. */
function matches(pattern: string, database: string): boolean {
  let expression = "";
  for (let at = 0; at < pattern.length; at += 1) {
    const sign = pattern[at] ?? "";
    if (sign === "%") expression += ".*";
    else if (sign === "_") expression += ".";
    else {
      if (sign === "\\") at += 1;
      expression += (pattern[at] ?? "").replace(/[^A-Za-z0-9]/g, "\\$&");
    }
  }
  return new RegExp(`^${expression}$`, "s").test(database);
}
