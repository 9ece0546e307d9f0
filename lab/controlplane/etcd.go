package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// newEtcdCommand is a single-member etcd for a cluster that lives for minutes:
// no fsync, and short ticks so that it elects itself at once.
func newEtcdCommand() *cobra.Command {
	var dataDir string
	var port int
	command := &cobra.Command{
		Use:           "etcd",
		Short:         "a single etcd member on the loopback address",
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			return runEtcd(dataDir, port)
		},
	}
	command.Flags().StringVar(&dataDir, "data-dir", "", "where the data lives")
	command.Flags().IntVar(&port, "port", 2379, "client port; the peer port is the next one")
	_ = command.MarkFlagRequired("data-dir")
	return command
}

func runEtcd(dataDir string, port int) error {
	client := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
	peer := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port+1)}

	config := embed.NewConfig()
	config.Dir = dataDir
	config.UnsafeNoFsync = true
	config.QuotaBackendBytes = 4 << 30
	config.TickMs = 20
	config.ElectionMs = 200
	config.LogLevel = "error"
	config.ListenClientUrls = []url.URL{client}
	config.AdvertiseClientUrls = []url.URL{client}
	config.ListenPeerUrls = []url.URL{peer}
	config.AdvertisePeerUrls = []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return err
	}
}
