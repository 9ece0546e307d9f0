// The reference engine: evaluates [expression, variables] pairs of standard input, answers {value} or {error} for each.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import jsonata from "jsonata";

const questions = JSON.parse(readFileSync(0, "utf8"));
const answers = [];
for (const [expression, variables] of questions) {
  try {
    const program = jsonata(expression);
    // Step Functions' own, which JSONata lacks.
    const hash = (text, algorithm) => createHash(algorithm.replace("-", "")).update(text).digest("hex");
    program.registerFunction("hash", hash, "<ss:s>");
    const value = await program.evaluate(undefined, variables);
    answers.push(value === undefined ? { undefined: true } : { value });
  } catch (error) {
    answers.push({ error: error.code ?? String(error) });
  }
}
process.stdout.write(JSON.stringify(answers));
