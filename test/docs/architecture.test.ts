import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const architecture = readFileSync(join(root, "ARCHITECTURE.md"), "utf8");
const listed = new Set([...architecture.matchAll(/^(\d+)\. /gm)].map((match) => Number(match[1])));

function citedIn(pattern: string): Map<number, string> {
  const cited = new Map<number, string>();
  for (const file of globSync(pattern, { cwd: root })) {
    const text = readFileSync(join(root, file), "utf8");
    for (const match of text.matchAll(/invariants? (\d+(?:(?:, | and )\d+)*)/gi)) {
      for (const number of (match[1] ?? "").split(/, | and /)) cited.set(Number(number), file);
    }
  }
  return cited;
}

test("every invariant that code cites is listed in ARCHITECTURE.md", () => {
  assert.ok(listed.size >= 8, "ARCHITECTURE.md lists its invariants");
  for (const [number, file] of citedIn("{agent,cluster,bench}/**/*.ts")) {
    assert.ok(listed.has(number), `${file} cites invariant ${number}, which ARCHITECTURE.md does not list`);
  }
});

test("every invariant is named by a test", () => {
  const tested = citedIn("test/**/*.test.ts");
  for (const number of listed) {
    assert.ok(tested.has(number), `no test names invariant ${number}`);
  }
});

test("ARCHITECTURE.md is at most two pages", () => {
  assert.ok(architecture.length < 9_000, `${architecture.length} characters`);
});

test("CHANGELOG.md has an Unreleased section with entries", () => {
  const changelog = readFileSync(join(root, "CHANGELOG.md"), "utf8");
  assert.match(changelog, /^## Unreleased\n+- \S/m);
});
