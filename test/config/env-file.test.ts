import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseEnvFile } from "../../agent/config/env-file.ts";

function valuesOf(text: string): Record<string, string> {
  return Object.fromEntries(parseEnvFile(text).entries.map((entry) => [entry.name, entry.value]));
}

describe("the syntax of EnvironmentFile=", () => {
  it("reads plain values, blanks, comments and line ends as systemd does", () => {
    const text = [
      "# a comment",
      "; another",
      "A=1",
      "  B = two words  ",
      "C=",
      "D=a#b",
      "E=it's",
      'F=a"b"',
      "# a comment that goes on \\",
      "G=inside the comment",
      "H=last",
    ].join("\n");
    assert.deepEqual(valuesOf(text), {
      A: "1",
      B: "two words",
      C: "",
      D: "a#b",
      E: "it's",
      F: 'a"b"',
      H: "last",
    });
    assert.deepEqual(valuesOf("A=1\r\nB=2\r\n"), { A: "1", B: "2" });
  });

  it("reads single quotes literally and double quotes with four escapes", () => {
    assert.deepEqual(valuesOf("A='a \\n \"x\" $y'"), { A: 'a \\n "x" $y' });
    assert.deepEqual(valuesOf('A="a \\"b\\" \\$c \\\\ \\` \\n"'), { A: 'a "b" $c \\ ` \\n' });
    assert.deepEqual(valuesOf('A="one\ntwo"\nB=3'), { A: "one\ntwo", B: "3" });
    assert.deepEqual(valuesOf("A=\"joined\" 'pieces' plain"), { A: "joinedpiecesplain" });
  });

  it("joins lines that end with a backslash, and takes any escaped character as itself", () => {
    assert.deepEqual(valuesOf("A=one\\\ntwo\nB=a\\ b\\\\"), { A: "onetwo", B: "a b\\" });
    assert.deepEqual(valuesOf("A=keep\\  \nB=1"), { A: "keep ", B: "1" });
  });

  it("expands nothing", () => {
    assert.deepEqual(valuesOf("A=$HOME ${B} `id`"), { A: "$HOME ${B} `id`" });
  });

  it("names the line of what is no assignment", () => {
    const file = parseEnvFile("A=1\n\nnonsense\nexport B=2\n1X=3\n");
    assert.deepEqual(
      file.faults.map((fault) => fault.line),
      [3, 4, 5],
    );
    assert.deepEqual(
      file.entries.map((entry) => [entry.name, entry.line]),
      [["A", 1]],
    );
  });

  it("never throws and never loops, whatever the bytes are", () => {
    const seed = Date.now() % 1_000_000;
    let state = seed;
    const random = (): number => (state = (state * 1_103_515_245 + 12_345) % 2 ** 31);
    const alphabet = "A=\"'\\\n\r\t #;$x1";
    for (let round = 0; round < 2000; round++) {
      let text = "";
      for (let index = random() % 40; index > 0; index--) text += alphabet[random() % alphabet.length];
      const file = parseEnvFile(text);
      for (const entry of file.entries) assert.ok(entry.line >= 1, `seed ${seed}`);
    }
  });
});
