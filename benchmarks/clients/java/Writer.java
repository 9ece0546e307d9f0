// One client that writes until its standard input ends: LIBRARY MODE HOST:PORT,... NAME PASSWORD NUMBER.
// Prints "A VALUE MILLISECONDS" for each acknowledged write, "E ERROR" for each that failed.

import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisURI;
import io.lettuce.core.cluster.RedisClusterClient;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.apache.commons.pool2.impl.GenericObjectPoolConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.JedisCluster;
import redis.clients.jedis.JedisSentinelPool;

public final class Writer {
    interface Push { void push(String key, String value) throws Exception; }

    static volatile boolean ended = false;

    public static void main(String[] words) throws Exception {
        String library = words[0], mode = words[1], name = words[3], password = words[4], number = words[5];
        List<String> hosts = Arrays.asList(words[2].split(","));
        Thread end = new Thread(() -> {
            try { System.in.readAllBytes(); } catch (java.io.IOException gone) { }
            ended = true;
        });
        end.setDaemon(true);
        end.start();
        Push push = library.equals("lettuce") ? lettuce(mode, hosts, name, password) : jedis(mode, hosts, name, password);
        for (int value = 1; !ended; value++) {
            while (!ended) {
                try {
                    push.push("writer-" + number + ":" + value % 128, String.valueOf(value));
                    System.out.println("A " + value + " " + System.nanoTime() / 1e6);
                    break;
                } catch (Exception error) {
                    System.out.println("E " + error.getClass().getSimpleName());
                    Thread.sleep(10);
                }
            }
            Thread.sleep(5);
        }
        System.exit(0);
    }

    static Push lettuce(String mode, List<String> hosts, String name, String password) {
        if (mode.equals("sentinel")) {
            RedisURI.Builder uri = RedisURI.builder().withSentinelMasterId(name).withPassword(password.toCharArray());
            for (String host : hosts) {
                // Built of itself, so that the password is not sent to sentinels, which want none.
                uri.withSentinel(RedisURI.create(host.split(":")[0], Integer.parseInt(host.split(":")[1])));
            }
            var commands = RedisClient.create(uri.build()).connect().sync();
            return (key, value) -> commands.rpush(key, value);
        }
        List<RedisURI> uris = new ArrayList<>();
        for (String host : hosts) {
            RedisURI uri = RedisURI.create(host.split(":")[0], Integer.parseInt(host.split(":")[1]));
            uri.setCredentialsProvider(io.lettuce.core.RedisCredentialsProvider.from(
                () -> io.lettuce.core.RedisCredentials.just(null, password)));
            uris.add(uri);
        }
        var commands = RedisClusterClient.create(uris).connect().sync();
        return (key, value) -> commands.rpush(key, value);
    }

    static Push jedis(String mode, List<String> hosts, String name, String password) {
        if (mode.equals("sentinel")) {
            JedisSentinelPool pool = new JedisSentinelPool(name, new LinkedHashSet<>(hosts), password);
            return (key, value) -> { try (Jedis jedis = pool.getResource()) { jedis.rpush(key, value); } };
        }
        Set<HostAndPort> nodes = new LinkedHashSet<>();
        for (String host : hosts) nodes.add(HostAndPort.from(host));
        JedisCluster cluster = new JedisCluster(nodes, 2000, 2000, 5, password, new GenericObjectPoolConfig<>());
        return (key, value) -> cluster.rpush(key, value);
    }
}
