// Asks a simulator of IAM whether each request of standard input is allowed: "Allowed", "ImplicitlyDenied", ...
import { readFileSync } from "node:fs";
import { runSimulation } from "@cloud-copilot/iam-simulate";

const answers = [];
for (const { action, resource, context, policies } of JSON.parse(readFileSync(0, "utf8"))) {
  const result = await runSimulation(
    {
      request: {
        principal: "arn:aws:iam::123456789012:role/step",
        action,
        resource: { resource, accountId: "123456789012" },
        contextVariables: context,
      },
      identityPolicies: policies.map((policy, number) => ({ name: `policy-${number}`, policy })),
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {},
  );
  answers.push(result.resultType === "error" ? { error: result.errors } : { result: result.overallResult ?? result.analysis?.result });
}
process.stdout.write(JSON.stringify(answers));
