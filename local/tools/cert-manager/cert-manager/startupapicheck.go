package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/cert-manager/cert-manager/pkg/util/cmapichecker"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
)

// startupAPICheck waits until the API server and the webhook take cert-manager's objects.
func startupAPICheck(ctx context.Context, flags *pflag.FlagSet, arguments []string) error {
	patience := flags.Duration("wait", 0, "how long to try")
	flags.CountP("verbose", "v", "say more")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if !slices.Equal(flags.Args(), []string{"check", "api"}) {
		return fmt.Errorf("%q: the only command is `check api`", flags.Args())
	}
	cluster, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	namespace := os.Getenv("POD_NAMESPACE")
	if namespace == "" {
		namespace = "cert-manager"
	}
	checker, err := cmapichecker.New(cluster, namespace)
	if err != nil {
		return err
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, 2*time.Second, *patience, true, func(ctx context.Context) (bool, error) {
		last = checker.Check(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	fmt.Println("The cert-manager API is ready")
	return nil
}
