// One go-redis client that writes until its standard input ends: LIBRARY MODE HOST:PORT,... NAME PASSWORD NUMBER.
// Prints "A VALUE MILLISECONDS" for each acknowledged write, "E ERROR" for each that failed.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	mode, hosts, name, password, number := os.Args[2], strings.Split(os.Args[3], ","), os.Args[4], os.Args[5], os.Args[6]
	var client redis.UniversalClient
	if mode == "sentinel" {
		client = redis.NewFailoverClient(&redis.FailoverOptions{MasterName: name, SentinelAddrs: hosts, Password: password})
	} else {
		client = redis.NewClusterClient(&redis.ClusterOptions{Addrs: hosts, Password: password})
	}
	var ended atomic.Bool
	go func() { io.Copy(io.Discard, os.Stdin); ended.Store(true) }()
	out, begun, ctx := bufio.NewWriter(os.Stdout), time.Now(), context.Background()
	for value := 1; !ended.Load(); value++ {
		for !ended.Load() {
			err := client.RPush(ctx, fmt.Sprintf("writer-%s:%d", number, value%128), value).Err()
			if err == nil {
				fmt.Fprintf(out, "A %d %f\n", value, float64(time.Since(begun).Microseconds())/1000)
				out.Flush()
				break
			}
			fmt.Fprintf(out, "E %s\n", strings.Fields(err.Error() + " ?")[0])
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(5 * time.Millisecond)
	}
	out.Flush()
}
