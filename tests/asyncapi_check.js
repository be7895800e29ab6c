// Whether the AsyncAPI document given is one, by AsyncAPI's own parser: every complaint on a line, exit code 1 for any
// error. `make asyncapi-check` calls it.
"use strict";

const fs = require("node:fs");
const { Parser } = require("@asyncapi/parser");

const ERROR = 0;

async function main(path) {
  const { diagnostics } = await new Parser().parse(fs.readFileSync(path, "utf8"));
  for (const { severity, path: where, message } of diagnostics) {
    console.log(`${severity === ERROR ? "error" : "note "} ${where.join(".")}: ${message}`);
  }
  process.exitCode = diagnostics.some(({ severity }) => severity === ERROR) ? 1 : 0;
}

main(process.argv[2]);
