// Command kubernetes is every Kubernetes program of the node in one binary: the name it is started under selects
// the program. One binary links once and is stored once, where six would take six times the time and space.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	_ "time/tzdata" // CronJobs with a time zone, on a host without a time zone database

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubeadmerrors "k8s.io/kubernetes/cmd/kubeadm/app/util/errors"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func command(program string) *cobra.Command {
	switch program {
	case "kube-apiserver":
		return apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		return controllermanager.NewControllerManagerCommand()
	case "kube-proxy":
		return proxy.NewProxyCommand()
	case "kube-scheduler":
		return scheduler.NewSchedulerCommand()
	case "kubelet":
		return kubelet.NewKubeletCommand(context.Background())
	}
	return nil
}

func main() {
	program := filepath.Base(os.Args[0])
	if program == "kubeadm" {
		kubeadmerrors.HandleError(kubeadm.Run()) // exits on an error
		return
	}
	selected := command(program)
	if selected == nil {
		fmt.Fprintf(os.Stderr, "%q is not a program of this binary. Start it as kube-apiserver, "+
			"kube-controller-manager, kube-proxy, kube-scheduler, kubeadm, or kubelet.\n", program)
		os.Exit(2)
	}
	os.Exit(cli.Run(selected))
}
