// One client that writes until its standard input ends: LIBRARY MODE HOST:PORT,... NAME PASSWORD NUMBER.
// Prints "A VALUE MILLISECONDS" for each acknowledged write, "E ERROR" for each that failed.
import { setTimeout as sleep } from "node:timers/promises";

const [library, mode, hosts, name, password, number] = process.argv.slice(2);
const nodes = hosts.split(",").map((each) => ({ host: each.split(":")[0], port: Number(each.split(":")[1]) }));
let ended = false;
process.stdin.resume().on("end", () => (ended = true));

async function connect() {
  if (library === "ioredis") {
    const { Redis, Cluster } = await import("ioredis");
    const client =
      mode === "sentinel"
        ? new Redis({ sentinels: nodes, name, password })
        : new Cluster(nodes, { redisOptions: { password } });
    client.on("error", () => {});
    return (key, value) => client.rpush(key, value);
  }
  const { createSentinel, createCluster } = await import("redis");
  const client =
    mode === "sentinel"
      ? createSentinel({ name, sentinelRootNodes: nodes, nodeClientOptions: { password } })
      : createCluster({ rootNodes: nodes.map((n) => ({ url: `redis://${n.host}:${n.port}` })), defaults: { password } });
  client.on("error", () => {});
  await client.connect();
  return (key, value) => client.rPush(key, String(value));
}

const write = await connect();
for (let value = 1; !ended; value++) {
  while (!ended) {
    try {
      await write(`writer-${number}:${value % 128}`, value);
      console.log(`A ${value} ${performance.now()}`);
      break;
    } catch (error) {
      console.log(`E ${error.name}`);
      await sleep(10);
    }
  }
  await sleep(5);
}
process.exit(0);
