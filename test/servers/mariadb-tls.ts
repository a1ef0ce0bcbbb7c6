import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface TlsFiles {
  /** The authority that signed the server's certificate. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** A throw-away authority and a certificate for localhost and 127.0.0.1, by the openssl command. */
export function makeTlsFiles(directory: string): TlsFiles {
  mkdirSync(directory, { recursive: true });
  const path = (name: string): string => join(directory, name);
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl([
    "req",
    "-x509",
    ...newKey,
    "-days",
    "2",
    "-subj",
    "/CN=throw-away authority",
    "-keyout",
    path("ca-key.pem"),
    "-out",
    path("ca.pem"),
  ]);
  openssl([
    "req",
    ...newKey,
    "-subj",
    "/CN=localhost",
    "-keyout",
    path("key.pem"),
    "-out",
    path("request.pem"),
  ]);
  writeFileSync(path("names.txt"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  openssl([
    "x509",
    "-req",
    "-in",
    path("request.pem"),
    "-CA",
    path("ca.pem"),
    "-CAkey",
    path("ca-key.pem"),
    "-CAcreateserial",
    "-days",
    "2",
    "-extfile",
    path("names.txt"),
    "-out",
    path("cert.pem"),
  ]);
  return { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem") };
}

function openssl(args: readonly string[]): void {
  const done = spawnSync("openssl", args, { encoding: "utf8" });
  if (done.error !== undefined) throw new Error("openssl is needed for TLS tests (Debian package openssl)");
  if (done.status !== 0) throw new Error(`openssl ${args[0] ?? ""} failed: ${done.stderr}`);
}
