// The four programs of cert-manager's chart, one for each first argument, on cert-manager's own packages.
//
// Its commands are Go modules of their own, which the module proxy does not have; everything that they run is in
// cert-manager's main module. The module's path lets it use what is internal there.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

type part func(ctx context.Context, flags *pflag.FlagSet, arguments []string) error

var parts = map[string]part{
	"cainjector":      cainjector,
	"controller":      controller,
	"startupapicheck": startupAPICheck,
	"webhook":         webhookServer,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 || parts[arguments[0]] == nil {
		return fmt.Errorf("the first argument names a part: cainjector, controller, startupapicheck or webhook")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	name := arguments[0]
	return parts[name](ctx, pflag.NewFlagSet(name, pflag.ContinueOnError), arguments[1:])
}
