// The reference engine: evaluates [expression, variables] pairs of standard input, answers {value} or {error} for each.
import { readFileSync } from "node:fs";
import jsonata from "jsonata";

const questions = JSON.parse(readFileSync(0, "utf8"));
const answers = [];
for (const [expression, variables] of questions) {
  try {
    const value = await jsonata(expression).evaluate(undefined, variables);
    answers.push(value === undefined ? { undefined: true } : { value });
  } catch (error) {
    answers.push({ error: error.code ?? String(error) });
  }
}
process.stdout.write(JSON.stringify(answers));
